"""`/system/services/{service}/deployment`: whether a service can be called, and what it last printed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from infra.local.api.replies import json_reply, text_reply
from infra.local.api.system_logs import is_true
from infra.local.engine import Engine
from infra.local.services import Deployed
from infra.local.users import policy
from infra.local.volumes import namespace_of

TAIL, MOST = 200, 1000
FORBIDDEN = "You do not have permission to access this service"


@dataclass(frozen=True)
class Runtime:
    """What stands behind a service now; the words are OSCAR's, `since` in Unix seconds."""

    state: str
    reason: str
    kind: str
    active: int = 0
    affected: int = 0
    since: float | None = None
    lines: Sequence[tuple[str, str]] | None = None
    """What it last printed: RFC 3339 times and lines; None where nothing is kept."""

    def summary(self) -> dict[str, Any]:
        """As a list of services shows it."""
        since = {} if self.since is None else {"last_transition_time": _rfc3339(self.since)}
        return {
            "state": self.state,
            "reason": self.reason,
            **since,
            "active_instances": self.active,
            "affected_instances": self.affected,
            "resource_kind": self.kind,
        }


class DeploymentRoutes:
    """The state of services; `inspectors` are asked first, in their order, and may know better."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.inspectors: list[Callable[[Deployed], Runtime | None]] = []

    def runtime(self, deployed: Deployed) -> Runtime:
        """What stands behind a service: any can be called as soon as it is deployed, and workers start on demand."""
        for inspect in self.inspectors:
            if found := inspect(deployed):
                return found
        idle = sum(worker["service"] == deployed.name for worker in self._engine.workers())
        return Runtime("ready", "Runtime service is ready.", "knative_service", idle, since=deployed.updated)

    async def status(self, request: Request) -> Response:
        """The state of one service; 403 also where there is none, as in OSCAR."""
        deployed = self._find(request)
        if deployed is None:
            return text_reply(FORBIDDEN, 403)
        names = {"service_name": deployed.name, "namespace": namespace_of(deployed.owner)}
        return json_reply({**names, **self.runtime(deployed).summary()})

    async def logs(self, request: Request) -> Response:
        """The last lines of a long-running service; what jobs print is in their own logs."""
        deployed = self._find(request)
        if deployed is None:
            return text_reply(FORBIDDEN, 403)
        lines = self.runtime(deployed).lines
        if not lines:
            why = "unavailable for this service" if lines is None else "not yet available"
            none = {"available": False, "message": f"Deployment logs are {why}."}
            return json_reply({"service_name": deployed.name, **none, "entries": []})
        stamped = is_true(request.query_params.get("timestamps", ""))
        entries = [
            {"timestamp": when, "message": line} if stamped else {"message": line}
            for when, line in lines[-_tail(request.query_params.get("tailLines", "")) :]
        ]
        return json_reply({"service_name": deployed.name, "available": True, "entries": entries})

    def _find(self, request: Request) -> Deployed | None:
        deployed = self._engine.services.get(request.path_params["service"])
        return deployed if deployed is not None and policy.sees_service(request.state.user, deployed) else None


def _tail(text: str) -> int:
    known = text.isascii() and text.isdecimal() and len(text) < 10 and int(text) > 0
    return min(int(text), MOST) if known else TAIL


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
