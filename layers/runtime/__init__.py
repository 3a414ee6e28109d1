"""The function contract: what a function may ask of its surroundings, and nothing else.

A function is a module with

    run(source: Path, destination: Path, settings: Settings[, job: Job]) -> None

and, beside it, `Settings` (a frozen dataclass, read from environment variables), optionally `MODELS` (the names of the
models it serves with) and `REPLY` (a glob: which one of its files answers a synchronous call); or, for the few that
answer requests for as long as they live, with

    app(settings: Settings) -> an ASGI application
"""

from layers.runtime.contract import Checkpointed, Input, InputError, Job
from layers.runtime.parameters import read_request

__all__ = ["Checkpointed", "Input", "InputError", "Job", "read_request"]
