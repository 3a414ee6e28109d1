"""`infra.local` with something broken in it; the cluster's own code knows nothing of it.

FAULT_DIE `module:function:before|after[:n]` ends the process, as by a power cut, at the n-th passage of that function
after the file FAULT_ARMED has appeared. FAULT_CLOCK names a file with the seconds by which the clock is wrong.
FAULT_SET is `module:NAME=number`, several separated by commas.
"""

import functools
import importlib
import inspect
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn


def main() -> int:
    if "FAULT_CLOCK" in os.environ:
        shift_clock(Path(os.environ["FAULT_CLOCK"]))
    for setting in filter(None, os.environ.get("FAULT_SET", "").split(",")):
        module, _, assignment = setting.partition(":")
        name, _, value = assignment.partition("=")
        assert hasattr(importlib.import_module(module), name), setting
        setattr(importlib.import_module(module), name, float(value))
    if "FAULT_DIE" in os.environ:
        die_at(os.environ["FAULT_DIE"], Path(os.environ["FAULT_ARMED"]))
    from infra.local.__main__ import main as serve

    return serve()


def die_at(step: str, armed: Path) -> None:
    module, path, when, number = (*step.split(":"), "1")[:4]
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    passages = itertools.count(1)

    def passed() -> None:
        if armed.exists() and next(passages) == int(number):
            die()

    setattr(owner, name, wrapped(getattr(owner, name), passed, before=when == "before"))


def wrapped(function: Callable[..., Any], passed: Callable[[], None], *, before: bool) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def awaited(*arguments: Any, **named: Any) -> Any:
            if before:
                passed()
            result = await function(*arguments, **named)
            if not before:
                passed()
            return result

        return awaited

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        if before:
            passed()
        result = function(*arguments, **named)
        if not before:
            passed()
        return result

    return called


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def shift_clock(file: Path) -> None:
    """Make the wall clock wrong; the monotonic clock is not."""
    right = time.time
    import datetime as module

    def shifted() -> float:
        return right() + float(file.read_text() or 0)

    class Shifted(module.datetime):
        @classmethod
        def now(cls, tz: module.tzinfo | None = None) -> module.datetime:
            return module.datetime.fromtimestamp(shifted(), tz)

    time.time = shifted
    import infra.local.s3.app as app

    app.datetime = Shifted  # type: ignore[misc]


if __name__ == "__main__":
    sys.exit(main())
