"""Call a function from a test or a notebook, through the same code that every engine uses.

>>> outcome = call("pulsar.preprocess", Path("a.fil"), Path("out"))  # doctest: +SKIP
>>> [output.path for output in outcome.outputs]  # doctest: +SKIP
['a.fil.h5', '_runs/a.fil/3f....json']
"""

import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layers.objects.errors import NoSuchObject
from layers.runtime.checkpoints import Copy
from layers.runtime.contract import Input
from layers.runtime.execution import Outcome, execute
from layers.runtime.function import sha256_of
from layers.runtime.invocation import Invocation

__all__ = ["FolderStore", "Outcome", "call"]


def call(
    function: str,
    source: Path,
    destination: Path,
    *,
    key: str = "",
    settings: Mapping[str, str] | None = None,
    inputs: Sequence[Input] = (),
    checkpoint: Path | None = None,
    kept: Path | None = None,
    stopping: threading.Event | None = None,
    reply: bool = False,
) -> Outcome:
    """Run `function` on `source`; its files stand in `destination` when the outcome's `code` is 0, and only then.

    `key` is the object key that invoked it (default: `in/` and the file's name), `settings` its environment variables,
    `inputs` what its request names, `reply=True` a synchronous call. Errors come as `outcome.error` and `.message`.

    `checkpoint` is the folder that survives attempts. With `kept` in its place, the run is that of a pod without one:
    the folder `kept` stands for object storage, and the next call finds what `job.keep()` or `Checkpointed` put there.
    """
    name = key.removeprefix("in/") or source.name
    environ = dict(settings or {})
    if checkpoint is not None:
        environ["DIOSCAR_CHECKPOINT"] = str(checkpoint)
    destination.mkdir(parents=True, exist_ok=True)
    service = function.replace(".", "-").replace("_", "-")
    invocation = Invocation(
        function=function,
        service=service,
        source=source,
        destination=destination,
        name=name,
        sha256=sha256_of(source),
        bucket="" if reply else service,
        key="" if reply else f"in/{name}",
        reply=reply,
        environ=environ,
    )
    return execute(
        invocation,
        stage=lambda _source, _kept: list(inputs),
        copy=lambda run_key: Copy(FolderStore(kept), service, run_key) if kept else None,
        stopping=stopping,
    )


@dataclass(frozen=True)
class FolderStore:
    """A folder in the place of an object store: a folder for each bucket, a file for each object."""

    folder: Path

    def get(self, bucket: str, key: str, target: Path) -> None:
        """Copy the object to `target`. Raises NoSuchObject."""
        try:
            shutil.copyfile(self.folder / bucket / key, target)
        except FileNotFoundError:
            raise NoSuchObject(f"{bucket}/{key}: there is no such object") from None

    def put(self, bucket: str, key: str, source: Path) -> None:
        """Store a file, which is whole or not there."""
        path = self.folder / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        shutil.copyfile(source, part)
        part.replace(path)

    def list(self, bucket: str, prefix: str = "") -> "Iterator[StoredFile]":
        """The objects whose keys begin with `prefix`, in the order of their keys."""
        root = self.folder / bucket
        keys = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        return (StoredFile(key) for key in keys if key.startswith(prefix))

    def delete(self, bucket: str, key: str) -> None:
        """Remove the object; one that is not there is no error."""
        (self.folder / bucket / key).unlink(missing_ok=True)


@dataclass(frozen=True)
class StoredFile:
    """What a listing says of an object."""

    key: str
