"""`GET /system/logs`: who called what, as OSCAR reads it from its own log."""

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from infra.local.api.replies import json_reply, text_reply
from infra.local.calls import Call, Calls
from infra.local.users import policy

PAGE = 1000


class SystemLogRoutes:
    """The calls of `/run` and `/job`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(self, request: Request) -> Response:
        """The last calls, oldest first; `next_page`, which OSCAR has not, leads to those before them."""
        if not policy.sees_system_logs(request.state.user):
            return text_reply("OIDC tokens are not allowed for system logs", 403)
        query = request.query_params
        if is_true(query.get("previous", "")):
            return text_reply("the log of the process before this one is not kept", 400)
        page = query.get("page", "")
        if page and not (page.isascii() and page.isdecimal() and len(page) < 19):
            return text_reply(f"page {page[:100]!a} is not one of ours; take next_page of the page before", 400)
        calls, older = self._calls.recent(before=int(page) if page else None, limit=PAGE)
        stamped = is_true(query.get("timestamps", ""))
        reply: dict[str, Any] = {"logs": [_entry(call, stamped=stamped) for call in calls]}
        return json_reply(reply if older is None else {**reply, "next_page": str(older)})


def is_true(text: str) -> bool:
    """Whether a parameter is one of Go's words for yes."""
    return text in ("1", "t", "T", "TRUE", "true", "True")


def _entry(call: Call, *, stamped: bool) -> dict[str, Any]:
    when = datetime.fromtimestamp(call.time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    latency = _go_duration(call.latency_s)
    line = (
        f"[GIN-EXECUTIONS-LOGGER] {when} | {call.status:3} | {latency:>13} | {call.client} | "
        f"{'POST':<7} {call.path} | {call.user}"
    )
    return {
        "timestamp": when,
        "status": call.status,
        "latency": latency,
        "client_ip": call.client,
        "method": "POST",
        "path": call.path,
        "user": call.user,
        "raw": f"{when} {line}" if stamped else line,
    }


def _go_duration(seconds: float) -> str:
    """A time as Go prints it.

    >>> _go_duration(0.0000125), _go_duration(0.25), _go_duration(75.5)
    ('12.5µs', '250ms', '1m15.5s')
    """
    if seconds < 0.001:
        return f"{seconds * 1e6:.3f}".rstrip("0").rstrip(".") + "µs"
    if seconds < 1:
        return f"{seconds * 1e3:.6f}".rstrip("0").rstrip(".") + "ms"
    minutes, rest = divmod(seconds, 60)
    text = f"{rest:.9f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes:.0f}m{text}" if minutes else text
