"""What a run keeps over its attempts: a folder, and a copy in object storage where the folder goes with its pod.

A copy is a manifest that names objects. Objects are new ones each time, and the manifest is replaced last: an upload
that breaks off leaves the copy before it as it was.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from layers.objects.errors import AccessRefused, NoSuchObject, ObjectError
from layers.runtime.contract import Checkpointed
from layers.runtime.function import sha256_of
from layers.runtime.holding import HOLDER_S, Held, held, make_root

FOLDER = "checkpoints"
"""Where copies stand in a service's bucket: `checkpoints/<run key>/`."""
MANIFEST = "manifest.json"
FILES, PINS = "files", "inputs.json"
"""Below a run's folder: what the function keeps, and which objects its request stands for."""

PATIENCE_S, POLL_S = 600.0, 0.5
"""How long, and how often, a rank looks for what rank 0 has to say."""


class Store(Protocol):
    """What a copy asks of an object store (`layers.objects.client.S3Client` has it)."""

    def get(self, bucket: str, key: str, target: Path) -> Any: ...
    def put(self, bucket: str, key: str, source: Path) -> Any: ...
    def list(self, bucket: str, prefix: str = "") -> Iterable[Any]: ...
    def delete(self, bucket: str, key: str) -> None: ...


@dataclass(frozen=True)
class _Entry:
    """A file of a copy: its path below the run's folder, and the object that holds it."""

    path: str
    object: str
    sha256: str
    size: int


class Copy:
    """What one run key keeps in a bucket."""

    def __init__(self, store: Store, bucket: str, run_key: str) -> None:
        self._store = store
        self._bucket = bucket
        self._prefix = f"{FOLDER}/{run_key}/"
        self._attempt = os.urandom(4).hex()
        self._entries: dict[str, _Entry] = {}

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self._bucket}/{self._prefix}"

    def restore(self, folder: Path) -> None:
        """Fill the empty `folder` with what was kept; a copy that is damaged counts for nothing.

        Raises AccessRefused where the bucket may not be read, StoreUnavailable where it does not answer.
        """
        try:
            self._entries = {entry.path: entry for entry in self._manifest(folder)}
            for entry in self._entries.values():
                target = folder / entry.path
                target.parent.mkdir(parents=True, exist_ok=True)
                self._fetch(entry.object, target)
                if sha256_of(target) != entry.sha256:
                    raise _Damaged(f"{entry.object} is not what was stored")
        except _Damaged as error:
            self._entries = {}
            shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
            _say(f"the checkpoint in {self.place} is damaged ({error}); starting anew")

    def keep(self, folder: Path) -> None:
        """Replace the copy by what stands in `folder` now. Raises ObjectError."""
        entries = {}
        for path in [*sorted((folder / FILES).rglob("*")), folder / PINS]:
            if path.is_file() and not path.is_symlink():
                name = path.relative_to(folder).as_posix()
                entries[name] = self._stored(name, path)
        manifest = folder / MANIFEST
        manifest.write_text(json.dumps({"version": 1, "files": [asdict(entry) for entry in entries.values()]}))
        self._store.put(self._bucket, self._prefix + MANIFEST, manifest)
        left = {entry.object for entry in self._entries.values()} - {entry.object for entry in entries.values()}
        self._entries = entries
        for key in left:
            self._store.delete(self._bucket, key)

    def remove(self) -> None:
        """Leave nothing of this run key, the remains of broken uploads included. Raises ObjectError."""
        keys = [found.key for found in self._store.list(self._bucket, self._prefix)]
        for key in sorted(keys, key=lambda key: not key.endswith(f"/{MANIFEST}")):  # first what names the others
            self._store.delete(self._bucket, key)

    def _stored(self, name: str, path: Path) -> _Entry:
        """The object that holds a file: a new one, unless the file is as it was."""
        digest, size = sha256_of(path), path.stat().st_size
        before = self._entries.get(name)
        if before and (before.sha256, before.size) == (digest, size):
            return before
        place = hashlib.sha256(name.encode()).hexdigest()[:8]
        entry = _Entry(name, f"{self._prefix}{self._attempt}-{place}-{digest[:16]}", digest, size)
        self._store.put(self._bucket, entry.object, path)
        return entry

    def fetch(self, name: str, target: Path) -> None:
        """One file of what is kept now. Raises NoSuchObject where it is not."""
        for entry in self._manifest(target.parent):
            if entry.path == name:
                self._store.get(self._bucket, entry.object, target)
                return
        raise NoSuchObject(f"{self.place}{MANIFEST}: has no {name}")

    def _fetch(self, key: str, target: Path) -> None:
        try:
            self._store.get(self._bucket, key, target)
        except NoSuchObject as error:
            raise _Damaged(str(error)) from None

    def _manifest(self, folder: Path) -> list[_Entry]:
        target = folder / MANIFEST
        try:
            self._store.get(self._bucket, self._prefix + MANIFEST, target)
        except NoSuchObject:
            return []
        try:
            entries = [_Entry(**entry) for entry in json.loads(target.read_text(encoding="utf-8"))["files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise _Damaged(f"{MANIFEST}: {error}") from None
        for entry in entries:
            path = PurePosixPath(entry.path)
            if path.is_absolute() or ".." in path.parts or path.parts[0] not in (FILES, PINS):
                raise _Damaged(f"{MANIFEST}: {entry.path} is no path of a checkpoint")
        return entries


class Kept:
    """The folder of a run: `files/` is `job.checkpoint`, `inputs.json` what its request was resolved to.

    It is opened when it is first asked for, so that a run that keeps nothing costs nothing. `copy` is asked then, where
    the folder itself does not survive. Of several ranks, the folder is that of rank 0; a follower's is its own, and
    goes with it. Of several runs at once, one has the folder (see `layers.runtime.holding`); where that stays so,
    another has one that goes with it, or ends to be run again where its ranks have to find it.
    """

    def __init__(
        self,
        folder: Path,
        copy: Callable[[], Copy | None] = lambda: None,
        *,
        rank: int = 0,
        ranks: int = 1,
        after: str = "",
    ) -> None:
        self._shared = self._folder = folder
        self._find_copy = copy
        self._copy: Copy | None = None
        self._opened = False
        self._rank, self._ranks = rank, ranks
        self._after = after
        self._private = False
        self._held: Held | None = None

    def open(self) -> Path:
        """The folder, with what earlier attempts have kept."""
        if self._opened:
            return self._folder
        copy = self._find_copy()
        if copy is None:
            make_root(self._shared.parent)
            self._held = held(self._shared, HOLDER_S) if self._rank == 0 else None
            if self._rank == 0 and self._held is None:
                if self._ranks > 1:
                    raise Checkpointed("another run of this request is at work; to be run again")
                _say("another run of this request is at work: this one begins anew, and keeps no checkpoint")
        self._opened = True
        self._private = self._held is None
        if self._private:
            self._folder = Path(tempfile.mkdtemp(prefix="dioscar-checkpoint-"))
        self._copy = copy
        if copy and self._rank == 0:
            try:
                copy.restore(self._folder)
            except AccessRefused as error:
                self._copy = None
                _say(f"no checkpoint is kept outside of this pod: {error}")
        return self._folder

    def pinned(self, *, in_full: bool = False) -> list[dict[str, str]] | None:
        """What the request was resolved to, if it was; a follower waits for rank 0 to say so.

        Rank 0 says which objects before it has fetched them, and with their digests after that: `in_full`.
        """
        pins = self.open() / PINS
        if self._rank == 0:
            return _read_pins(pins) if pins.is_file() else None
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            with contextlib.suppress(NoSuchObject, FileNotFoundError):
                if self._copy:
                    self._copy.fetch(PINS, pins)
                found = _read_pins(pins if self._copy else self._shared / PINS)
                if not in_full or all(pin["sha256"] for pin in found):
                    return found
            time.sleep(POLL_S)
        what = "what its inputs are" if in_full else "which inputs it found"
        raise TimeoutError(f"rank {self._rank}: rank 0 has not said {what}, in {PATIENCE_S:g} s")

    def announce(self, pins: list[dict[str, str]]) -> None:
        """`pin`, where other ranks wait for it: they fetch them at the same time."""
        if self._ranks > 1:
            self.pin(pins)

    def pin(self, pins: list[dict[str, str]]) -> None:
        """The request stands for these objects (`bucket`, `key`, `sha256`), on every attempt and in every rank."""
        if self._rank == 0:
            part = self.open() / f"{PINS}.{os.urandom(4).hex()}.part"
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(pins), encoding="utf-8")
            part.replace(self._folder / PINS)
            if self._ranks > 1:
                self.keep_now()

    @property
    def files(self) -> Path:
        """`job.checkpoint`."""
        folder = self.open() / FILES
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self) -> None:
        """Have what stands there survive this attempt; a store in trouble costs no more than this one copy."""
        try:
            self.keep_now()
        except ObjectError as error:
            _say(f"the checkpoint is not kept: {error}")

    def keep_now(self) -> None:
        """`keep`, where nothing comes after. Raises ObjectError."""
        if self._copy and self._rank == 0:
            self._copy.keep(self._folder)

    def remove(self) -> None:
        """The run has succeeded: nothing is kept any longer than `after` says, who stores the outputs first."""
        if self._rank > 0 or (self._private and not self._copy):
            return  # nothing of this run survives it
        if self._after and (self._copy or self._shared.exists()):
            Path(self._after).write_text(str(self._shared), encoding="utf-8")
        elif self._held:
            self._held.remove()
        else:
            forget(self._shared, self._copy)

    def close(self) -> None:
        """Leave nothing that only this attempt has seen, and the folder to the next run."""
        if self._opened and self._private:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._held:
            self._held.release()


def forget(folder: Path, copy: Copy | None) -> None:
    """Remove the folder of a run, unless another run has it by now, and its copy."""
    if folder.exists() and (mine := held(folder, 0.0)):
        mine.remove()
        mine.release()
    if copy:
        try:
            copy.remove()
        except ObjectError as error:
            _say(f"{copy.place} may be deleted: {error}")


class _Damaged(Exception):  # noqa: N818
    """A copy is not what was kept."""


def _read_pins(path: Path) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _say(sentence: str) -> None:
    print(f"dioscar: {sentence}", flush=True)  # noqa: T201 - the job's log
