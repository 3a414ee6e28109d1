"""One invocation of a function, as its caller's environment describes it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from events.notifications import NotificationError, read
from layers.runtime.contract import InputError
from layers.runtime.function import sha256_of

_ANONYMOUS = re.compile(r"event-file-[0-9a-f-]{36}")  # the supervisor's name for the body of a direct call
MAILBOX = "in/"


@dataclass(frozen=True)
class Invocation:
    """What is to be run on what, and where its files go.

    `name` is the input's path below the mailbox folder (`in/a/b.fil` -> `a/b.fil`): outputs are named after it.
    `environ` holds the service's variables (settings, FORWARD) and those by which an engine passes paths:
    DIOSCAR_INPUTS (manifest), DIOSCAR_CHECKPOINT, DIOSCAR_PROGRESS, DIOSCAR_ENGINE (it forwards by itself),
    DIOSCAR_AFTER (a file that is to name the folder of what was kept: it is removed when the outputs are stored).
    """

    function: str
    service: str
    source: Path
    destination: Path
    name: str
    sha256: str
    bucket: str = ""
    key: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    reply: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The folders below the mailbox, kept in the outputs' paths."""
        return self.name.rpartition("/")[0]

    @property
    def rank(self) -> int:
        """Which of the processes this is that run it together, as `torchrun` says it; 0 where it runs alone."""
        return _number(self.environ, "RANK") if self.ranks > 1 else 0

    @property
    def ranks(self) -> int:
        """How many processes run it together."""
        return max(1, _number(self.environ, "WORLD_SIZE"))


def from_environment(environ: Mapping[str, str], content: bytes | None = None) -> Invocation:
    """Read what OSCAR's supervisor exports to a script; `content` is what the file holds, where that is at hand.

    Raises InputError, naming the variable that is missing or wrong.
    """
    source = Path(_need(environ, "INPUT_FILE_PATH"))
    if content is None and not source.is_file():
        raise InputError(f"INPUT_FILE_PATH: {source} is no file; the function needs file_stage_in: false in its FDL")
    function = _need(environ, "DIOSCAR_FUNCTION")
    bucket, key, metadata = _object(environ)
    sha256 = sha256_of(source) if content is None else hashlib.sha256(content).hexdigest()
    direct = not key
    return Invocation(
        function=function,
        service=environ.get("OSCAR_SERVICE_NAME") or function.replace(".", "-"),
        source=source,
        destination=Path(_need(environ, "TMP_OUTPUT_DIR")),
        name=_direct_name(source, sha256) if direct else below_mailbox(key),
        sha256=sha256,
        bucket=bucket,
        key=key,
        metadata=metadata,
        reply=is_reply(environ),
        environ=environ,
    )


def is_reply(environ: Mapping[str, str]) -> bool:
    """Whether somebody waits for the answer: no object invoked us, and no job was made (OSCAR names those it makes)."""
    return not environ.get("STORAGE_OBJECT_KEY") and not environ.get("JOB_UUID")


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isdigit() else 0


def _need(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name)
    if not value:
        raise InputError(f"environment variable {name} is not set; run the function through OSCAR or `dioscar invoke`")
    return value


def _object(environ: Mapping[str, str]) -> tuple[str, str, dict[str, str]]:
    """Bucket, key and metadata of the object that invoked us; empty for a direct call."""
    if not environ.get("EVENT"):
        return "", environ.get("STORAGE_OBJECT_KEY", ""), {}
    try:
        document = json.loads(environ["EVENT"])
    except ValueError:
        document = None
    try:
        found = read(document)
    except NotificationError as error:
        raise InputError(f"EVENT: {error}") from None
    if not found:
        return "", environ.get("STORAGE_OBJECT_KEY", ""), {}
    return found[0].bucket, found[0].key, dict(found[0].metadata)


def below_mailbox(key: str) -> str:
    """The key below `in/`, with nothing in it that could leave the folder it is joined to."""
    parts = [part for part in key.removeprefix(MAILBOX).split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "payload"


def _direct_name(source: Path, sha256: str) -> str:
    """A body has no name of its own: one from its content, so that equal bodies give equal outputs."""
    return f"payload-{sha256[:12]}" if _ANONYMOUS.fullmatch(source.name) else source.name
