"""A function by its name: `pulsar.classify` is the module `functions.pulsar.classify`."""

import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from layers.runtime import models as registry
from layers.runtime.contract import InputError

_NAME = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)+")


@dataclass(frozen=True)
class NoSettings:
    """Settings of a function that has none."""


@dataclass(frozen=True)
class Function:
    """What the runtime needs to know of a function's module."""

    name: str
    run: Callable[..., None]
    takes_job: bool
    settings: type[Any]
    models: tuple[str, ...]
    reply: str | None
    folder: Path
    version: str


@dataclass(frozen=True)
class App:
    """What the runtime needs to know of a module of the second form: `app(settings)` makes an ASGI application."""

    name: str
    app: Callable[[Any], Any]
    settings: type[Any]


class ModelError(Exception):
    """A model that a function serves with is not there; the message names it and where it was looked for."""


@functools.cache
def load(name: str) -> Function:
    """Import the function `name`.

    Raises InputError where the name is malformed, unknown, or its module keeps no `run`.
    """
    module = _module(name)
    run = getattr(module, "run", None)
    if not callable(run):
        file = f"functions/{name.replace('.', '/')}.py"
        if callable(getattr(module, "app", None)):
            raise InputError(f"{file}: is an exposed service (it has app and no run), which no event and no call runs")
        raise InputError(f"{file}: has no run(source, destination, settings); add it")
    folder = Path(module.__file__ or "").parent
    return Function(
        name=name,
        run=run,
        takes_job=len(inspect.signature(run).parameters) > 3,
        settings=getattr(module, "Settings", NoSettings),
        models=tuple(getattr(module, "MODELS", ())),
        reply=getattr(module, "REPLY", None),
        folder=folder,
        version=_version(folder),
    )


def is_app(name: str) -> bool:
    """Whether a module is of the second form alone. Raises InputError where its name is malformed or unknown."""
    module = _module(name)
    return callable(getattr(module, "app", None)) and not callable(getattr(module, "run", None))


def load_app(name: str) -> App:
    """Import the exposed service `name`.

    Raises InputError where the name is malformed, unknown, or its module keeps no `app`.
    """
    module = _module(name)
    app = getattr(module, "app", None)
    if not callable(app):
        file = f"functions/{name.replace('.', '/')}.py"
        raise InputError(
            f"{file}: has no app(settings) to serve; add it, or, if it runs on files, take expose out of its FDL"
        )
    return App(name, app, getattr(module, "Settings", NoSettings))


class Sources:
    """A twin's source files, those of its sub-packages too, as they were when this was made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = {str(path): _state_of(path) for path in folder.rglob("*.py")}
        self._folders = self._times()

    def changed(self) -> bool:
        """Whether a file has come, gone or been written since; costs a microsecond for each of them."""
        try:
            if any(_time_of(path) != time for path, time in self._folders.items()):
                if {str(path) for path in self._folder.rglob("*.py")} != self._files.keys():
                    return True
                self._folders = self._times()
            return any(_state_of(path) != state for path, state in self._files.items())
        except OSError:
            return True

    def _times(self) -> dict[Path, int]:
        """When an entry of a folder with sources last came or went."""
        folders = {self._folder, *(Path(path).parent for path in self._files)}
        return {path: _time_of(path) for path in folders}


def _module(name: str) -> ModuleType:
    """Import the module of that name. Raises InputError where the name is malformed or unknown."""
    if not _NAME.fullmatch(name):
        raise InputError(f'DIOSCAR_FUNCTION: "{name}" is no function name; write <twin>.<module>, e.g. pulsar.classify')
    qualified = f"functions.{name}"
    try:
        return importlib.import_module(qualified)
    except ModuleNotFoundError as error:
        if error.name and (qualified == error.name or qualified.startswith(error.name + ".")):
            mend = f"add functions/{name.replace('.', '/')}.py or correct the name"
            raise InputError(f'DIOSCAR_FUNCTION: there is no function "{name}"; {mend}') from None
        raise


def _time_of(path: Path) -> int:
    return os.stat(path).st_mtime_ns  # noqa: PTH116 - before every run, for every file


def _state_of(path: str | Path) -> tuple[int, int, int]:
    status = os.stat(path)  # noqa: PTH116
    return status.st_mtime_ns, status.st_size, status.st_ino


def resolve_models(function: Function, environ: Mapping[str, str]) -> dict[str, Path]:
    """The file that serves under each name in the function's `MODELS`.

    The caller may name a file with `DIOSCAR_MODEL_<NAME>` (upper case, `_` for `-`), as the embedded cluster does
    with what was promoted; in a pod that has credentials, the registry is asked here, for the alias that the variable
    names, if it does; else the file shipped in the twin's folder serves. Raises ModelError where none is there, and as
    `layers.runtime.models.from_pod` does.
    """
    paths = {}
    for name in function.models:
        variable = model_variable(name)
        promoted: str | Path | None = environ.get(variable)
        alias = registry.alias_in(environ.get(variable, ""))
        if alias or not promoted:
            engine = environ.get("DIOSCAR_ENGINE")
            promoted = None if engine else registry.from_pod(name, environ, alias or registry.SERVING)
        if alias and promoted is None:
            raise ModelError(
                f'model "{name}": nothing was promoted as "{alias}"; promote a version, or unset {variable}'
            )
        path = Path(promoted or function.folder / f"{name}.onnx")
        if not path.is_file():
            raise ModelError(f'model "{name}" is not at {path}; train it, or set {variable} to its file')
        paths[name] = path
    return paths


def model_variable(name: str) -> str:
    """The variable that names the file of a model.

    >>> model_variable("pulsar-classifier")
    'DIOSCAR_MODEL_PULSAR_CLASSIFIER'
    """
    return "DIOSCAR_MODEL_" + name.upper().replace("-", "_")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def version_of(model: Path) -> str:
    """The SHA-256 of a model's file, computed once while the file stays as it is."""
    status = model.stat()
    return _version_of(model, status.st_mtime_ns, status.st_size, status.st_ino)


@functools.lru_cache(maxsize=64)
def _version_of(model: Path, *_state: int) -> str:
    return sha256_of(model)


def _version(folder: Path) -> str:
    """The release plus a hash over the twin's sources: changed code is another version, on any host."""
    try:
        release = importlib.metadata.version("dioscar")
    except importlib.metadata.PackageNotFoundError:
        release = "0"
    digest = hashlib.sha256()
    for source in sorted(folder.rglob("*.py")):
        name = source.relative_to(folder).as_posix()
        digest.update(name.encode() + b"\0" + source.read_bytes() + b"\0")
    return f"{release}+{digest.hexdigest()[:12]}"
