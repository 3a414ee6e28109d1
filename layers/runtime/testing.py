"""Call a function from a test or a notebook, through the same code that every engine uses.

>>> outcome = call("pulsar.preprocess", Path("a.fil"), Path("out"))  # doctest: +SKIP
>>> [output.path for output in outcome.outputs]  # doctest: +SKIP
['a.fil.h5', '_runs/a.fil/3f....json']
"""

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from layers.runtime.contract import Input
from layers.runtime.execution import Outcome, execute
from layers.runtime.function import sha256_of
from layers.runtime.invocation import Invocation

__all__ = ["Outcome", "call"]


def call(
    function: str,
    source: Path,
    destination: Path,
    *,
    key: str = "",
    settings: Mapping[str, str] | None = None,
    inputs: Sequence[Input] = (),
    checkpoint: Path | None = None,
    stopping: threading.Event | None = None,
    reply: bool = False,
) -> Outcome:
    """Run `function` on `source`; its files stand in `destination` when the outcome's `code` is 0, and only then.

    `key` is the object key that invoked it (default: `in/` and the file's name), `settings` its environment variables,
    `inputs` what its request names, `reply=True` a synchronous call. Errors come as `outcome.error` and `.message`.
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
    return execute(invocation, stage=lambda _source, _kept: list(inputs), stopping=stopping)
