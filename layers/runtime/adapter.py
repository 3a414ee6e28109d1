"""What a process that runs functions does around `execute`: inputs, forwards, and the outcome for its engine."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layers.runtime import inputs
from layers.runtime.checkpoints import Copy, Kept
from layers.runtime.contract import Exit, Input, InputError
from layers.runtime.execution import ERROR_FILE, Outcome, execute
from layers.runtime.forward import Forward
from layers.runtime.function import sha256_of
from layers.runtime.invocation import Invocation, from_environment, is_reply

if TYPE_CHECKING:  # the S3 client is imported where it is used: an embedded run needs none
    from layers.objects.client import S3Client

CHECKPOINTS_WAIT_S = 20.0
"""How long a run waits for a store that is away when it keeps a checkpoint: the next one may find it back."""


def run_from_environment(
    environ: Mapping[str, str], stopping: threading.Event, content: bytes | None = None
) -> Outcome:
    """Run the invocation that `environ` describes, in the manner of the engine that set it.

    `content`: the bytes of the source, of a run that travels.
    """
    try:
        invocation = from_environment(environ, content)
        door = _Door(environ, content)
        send = None if environ.get("DIOSCAR_ENGINE") or not environ.get("FORWARD") else door.send
        if send and not invocation.reply:
            door.client()  # no credentials, no forwards: say so before the work is done
    except InputError as error:
        print(f"dioscar: InputError: {error}", flush=True)  # noqa: T201 - the job's log
        outcome = Outcome(Exit.BAD_INPUT, "InputError", str(error))
        if is_reply(environ) and "TMP_OUTPUT_DIR" in environ:
            Path(environ["TMP_OUTPUT_DIR"], ERROR_FILE).write_text(json.dumps(outcome.as_error()), encoding="utf-8")
        return outcome
    return execute(
        invocation,
        stage=door.stage,
        send=send,
        copy=lambda run_key: door.copy(invocation, run_key),
        stopping=stopping,
        content=content,
    )


def outcome_as_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome for an engine in another process."""
    return {
        "code": int(outcome.code),
        "error": outcome.error,
        "message": outcome.message,
        "run_key": outcome.run_key,
        "outputs": [output.as_json() for output in outcome.outputs],
        "forwards": [vars(forward) for forward in outcome.forwards],
    }


class _Door:
    """How this process reaches objects: through its engine's manifest, or with the job's own credentials."""

    def __init__(self, environ: Mapping[str, str], content: bytes | None) -> None:
        self._environ = environ
        self._content = content

    def client(self) -> "S3Client":
        from layers.runtime import storage

        found = storage.client(storage.read_config(self._environ))
        if found is None:
            raise InputError("this pod has no credentials for object storage; upload the file to the service's mailbox")
        return found

    def send(self, forward: Forward, path: Path, metadata: dict[str, str]) -> None:
        self.client().put(forward.bucket, forward.key, path, metadata=metadata)

    def copy(self, invocation: Invocation, run_key: str) -> Copy | None:
        """Where a checkpoint is kept, of a job that has neither an engine nor a folder that survives it."""
        if self._environ.get("DIOSCAR_ENGINE") or self._environ.get("DIOSCAR_CHECKPOINT") or invocation.reply:
            return None
        from layers.runtime import storage
        from layers.runtime.podstore import PodStore

        config = storage.read_config(self._environ)
        provider, bucket = config.mailbox(invocation.bucket)
        client = storage.client(config, provider=provider) if bucket else None
        if isinstance(client, PodStore):
            client.patience_s = CHECKPOINTS_WAIT_S
            client.job = ""  # a checkpoint is no output
        return Copy(client, bucket, run_key) if client else None

    def stage(self, source: Path, kept: Kept) -> list[Input]:
        if "DIOSCAR_INPUTS" in self._environ:
            return inputs.read_manifest(Path(self._environ["DIOSCAR_INPUTS"]))
        if self._content is None:
            references = inputs.read_references(source)
        else:
            references = inputs.references_in(self._content, source.name)
        if references is None:
            return []
        return _download(references, self.client(), kept)


def _download(references: list[inputs.Reference | inputs.Select], client: "S3Client", kept: Kept) -> list[Input]:
    """Fetch the inputs; what a `select` found on the first attempt is what every attempt gets."""
    from layers.objects.errors import NoSuchObject

    folder = kept.open()
    pins = kept.pinned()
    if pins is not None:
        pinned = [inputs.Reference(**entry) for entry in pins]
    else:
        pinned = inputs.resolve(references, lambda bucket, prefix: (found.key for found in client.list(bucket, prefix)))
        kept.announce([vars(reference) for reference in pinned])
    staged = []
    for index, reference in enumerate(pinned):
        path = folder / "inputs" / str(index) / Path(reference.key).name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            client.get(reference.bucket, reference.key, path)
        except NoSuchObject:
            raise InputError(f"{reference.bucket}/{reference.key}: {inputs.MISSING}") from None
        digest = sha256_of(path)
        inputs.check(reference, digest)
        staged.append(Input(reference.bucket, reference.key, digest, path))
    kept.pin([{"bucket": i.bucket, "key": i.key, "sha256": i.sha256} for i in staged])
    if not all(reference.sha256 for reference in pinned):
        for pin, found in zip(kept.pinned(in_full=True) or [], staged, strict=True):
            inputs.check(inputs.Reference(**pin), found.sha256)
    return staged
