"""What a plugin's PodStatus says of a pod, read as the virtual kubelet reads it, and more carefully where that errs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from infra.local.interlink.pod import CONTAINER

NOT_CREATED = "NotCreated"
"""Our own plugin's word for a pod that it has never been asked to create."""


class Phase(Enum):
    """Where a pod is; an `UNKNOWN` one the plugin knows nothing of, which ends nothing by itself."""

    UNKNOWN = "unknown"
    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class PodState:
    """A pod as its plugin sees it; `reason` says why it waits or how it ended, `started` is in Unix seconds."""

    phase: Phase
    reason: str = ""
    code: int = 0
    container: str = CONTAINER
    started: float | None = None


UNKNOWN = PodState(Phase.UNKNOWN)
SILENT = PodState(Phase.UNKNOWN, "left out")
"""Of a pod that an answer leaves out: the plugin cannot tell just now, or will never say anything of it."""


def read_statuses(answer: Any) -> dict[str, PodState]:
    """The states in an answer to GET /status, by uid. Raises ValueError where it is no list of PodStatus."""
    if answer is None:
        return {}
    if not isinstance(answer, list) or not all(isinstance(one, dict) for one in answer):
        raise ValueError("it is no list of statuses")
    return {str(one.get("UID") or ""): read_status(one) for one in answer}


def read_status(status: Mapping[str, Any]) -> PodState:
    """The state that one PodStatus tells. Containers without a state, or none at all, say nothing."""
    first = [state for state in _states(status.get("initContainers")) if state.phase is not Phase.UNKNOWN]
    own = _states(status.get("containers"))
    failed = next((state for state in first if state.phase is Phase.ENDED and state.code), None)
    if failed is not None:
        return failed
    if not own or all(state.phase is Phase.UNKNOWN for state in own):
        return UNKNOWN
    if all(state.phase is Phase.ENDED for state in own):
        return next((state for state in own if state.code), own[0])
    running = next((state for state in own if state.phase is Phase.RUNNING), None)
    if running is not None:
        return running
    waiting = [state for state in (*first, *own) if state.phase is Phase.WAITING]
    return waiting[-1] if waiting else UNKNOWN


def _states(statuses: Any) -> list[PodState]:
    found: Iterable[Any] = statuses if isinstance(statuses, list) else ()
    return [_state(one) for one in found if isinstance(one, dict)]


def _state(status: Mapping[str, Any]) -> PodState:
    state = status.get("state")
    name = str(status.get("name") or CONTAINER)
    if not isinstance(state, dict):
        return UNKNOWN
    if isinstance(ended := state.get("terminated"), dict):
        code = ended.get("exitCode")
        return PodState(
            Phase.ENDED,
            str(ended.get("message") or ""),
            code if isinstance(code, int) else 1,
            name,
            _seconds(ended.get("startedAt")),
        )
    if isinstance(running := state.get("running"), dict):
        return PodState(Phase.RUNNING, container=name, started=_seconds(running.get("startedAt")))
    if isinstance(waiting := state.get("waiting"), dict):
        reason, message = (str(waiting.get(part) or "") for part in ("reason", "message"))
        if reason == NOT_CREATED:
            return UNKNOWN
        if reason.lower() in message.lower() or (message and reason == "Pending"):  # said twice
            reason = ""
        return PodState(Phase.WAITING, ": ".join(filter(None, (reason, message))), container=name)
    return UNKNOWN


def _seconds(text: Any) -> float | None:
    try:
        seconds = datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds > 0 else None
