"""`/system/metrics`: how much services were used, by service, user and country, as JSON or CSV.

Requests through the API and the jobs that the queue still knows are counted. Countries would need a database of
addresses: every request comes from "unknown", and the lists of countries that leave that out are empty.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fdl.quantities import parse_cpu
from infra.local.api.replies import empty, json_reply
from infra.local.calls import ASYNC, EXPOSED, SYNC, Calls, Used
from infra.local.services import Deployed, Services
from infra.local.users import policy

DAY = timedelta(hours=24)
JOB = "job"
PER_SERVICE = (
    "cpu-hours",
    "gpu-hours",
    "requests-sync-per-service",
    "requests-async-per-service",
    "requests-exposed-per-service",
    "users-per-service",
)
OTHERS = ("services-count", "requests-per-user", "countries-count", "countries-list")
SOURCES = {
    "service-inventory": "",
    "usage-metrics": "run time of calls and of jobs' last attempts, times the cores of the FDL",
    "request-logs": "",
    "country": "no database of addresses",
    "exposed-request-logs": "",
}


@dataclass(frozen=True)
class _Span:
    """A span of time."""

    start: datetime
    end: datetime

    def to_json(self) -> dict[str, str]:
        return {"start": _rfc3339(self.start), "end": _rfc3339(self.end)}


class MetricsRoutes:
    """Three views of the same counts, each of what the caller may see."""

    def __init__(self, calls: Calls, services: Services) -> None:
        self._calls = calls
        self._services = services

    async def summary(self, request: Request) -> Response:
        """Totals over all services."""
        try:
            span = _span(request)
        except ValueError as error:
            return _refused(str(error))
        used = await self._used(request, span)
        users = sorted({one.user for one in used if one.user})
        sync, waited = _requests(used, SYNC), _requests(used, JOB)
        totals = {
            "services_count_active": len(self._visible(request)),
            "services_count_total": len({one.service for one in used}),
            "cpu_hours_total": self._cpu_hours(used),
            "gpu_hours_total": 0,
            "requests_count_total": sync + waited,
            "requests_count_sync": sync,
            "requests_count_async": waited,
            "requests_count_exposed": _requests(used, EXPOSED),
            "countries_count": 0,
            "countries": [] if used else None,
            "users_count": len(users),
            "users": users if used else None,
        }
        return json_reply({**span.to_json(), "totals": totals, "sources": [_source(name) for name in SOURCES]})

    async def breakdown(self, request: Request) -> Response:
        """The same by service, by user or by country."""
        query = request.query_params
        try:
            span = _span(request)
        except ValueError as error:
            return _refused(str(error))
        group = query.get("group_by", "").strip().lower()
        style = query.get("format", "json").strip().lower()
        with_users = query.get("include_users", "").strip().lower() == "true"
        if not group:
            return _refused("group_by is required")
        if style not in ("json", "csv"):
            return _refused("invalid format")
        if group not in ("service", "user", "country"):
            return _refused("unsupported group_by")
        if style == "csv" and group == "service" and with_users:
            return _refused("include_users is not supported for csv")
        used = await self._used(request, span)
        items = {"service": _by_service, "user": _by_user, "country": _by_country}[group](used)
        if style == "csv":
            return Response(_csv(group, items), media_type="text/csv")
        if group == "service" and with_users:
            items = [_with_users(item, used) for item in items]
        shown = [{name: value for name, value in item.items() if value or name != "membership"} for item in items]
        return json_reply({**span.to_json(), "group_by": group, "items": shown})

    async def service(self, request: Request) -> Response:
        """One service's metrics, or one of them."""
        name = request.path_params["service"]
        deployed = self._services.get(name)
        user = request.state.user
        if not user.is_admin and deployed is None:
            return empty(404)
        if deployed is not None and not policy.sees_service(user, deployed):
            return empty(403)
        try:
            span = _span(request)
        except ValueError as error:
            return _refused(str(error))
        metric = request.query_params.get("metric", "").strip()
        if metric and metric not in (*PER_SERVICE, *OTHERS):
            return _refused("invalid metric key")
        if metric in OTHERS:
            return _refused("unsupported metric for value query")
        used = [one for one in await self._used(request, span) if one.service == name]
        if not metric:
            metrics = [{"metric": key, **self._value(key, used)} for key in PER_SERVICE]
            return json_reply({"service_name": name, **span.to_json(), "metrics": metrics})
        return json_reply({"service_id": name, "metric": metric, **span.to_json(), **self._value(metric, used)})

    async def _used(self, request: Request, span: _Span) -> list[Used]:
        used = await self._calls.used(span.start.timestamp(), span.end.timestamp())
        if request.state.user.is_admin:
            return used
        visible = {deployed.name for deployed in self._visible(request)}
        return [one for one in used if one.service in visible]

    def _visible(self, request: Request) -> list[Deployed]:
        return [deployed for deployed in self._services.all() if policy.sees_service(request.state.user, deployed)]

    def _cpu_hours(self, used: Iterable[Used]) -> float:
        """Run time times the cores that the FDL asks for; those of a service that is gone are not known."""
        total = 0.0
        for one in used:
            deployed = self._services.get(one.service)
            if deployed is not None and one.kind in (SYNC, JOB):
                total += one.seconds / 3600 * float(parse_cpu(deployed.service.cpu))
        return total

    def _value(self, metric: str, used: Sequence[Used]) -> dict[str, Any]:
        value, unit, source = 0.0, "", "request-logs"
        if metric in ("cpu-hours", "gpu-hours"):
            value, unit, source = self._cpu_hours(used) if metric == "cpu-hours" else 0.0, "hours", "usage-metrics"
        elif metric == "requests-sync-per-service":
            value = _requests(used, SYNC)
        elif metric == "requests-async-per-service":
            value = _requests(used, JOB)
        elif metric == "requests-exposed-per-service":
            value, source = _requests(used, EXPOSED), "exposed-request-logs"
        else:
            value = len({one.user for one in used if one.user})
        number = int(value) if value == int(value) else value
        return {"value": number, **({"unit": unit} if unit else {}), "sources": [_source(source)]}


def _span(request: Request) -> _Span:
    """The span that a request asks for, the last day without one. Raises ValueError in OSCAR's words."""
    query = request.query_params
    end = _time(query.get("end", "").strip(), "end") or datetime.now(UTC)
    try:
        start = _time(query.get("start", "").strip(), "start") or end - DAY
        start.timestamp(), end.timestamp()
    except OverflowError:
        raise ValueError("invalid end timestamp") from None
    if end < start:
        raise ValueError("end must be after start")
    return _Span(start, end)


def _time(text: str, name: str) -> datetime | None:
    if not text:
        return None
    try:
        if len(text) < 20 or text[10] not in "Tt":
            raise ValueError(text)
        found = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that was not escaped
        if found.tzinfo is None:
            raise ValueError(text)
    except ValueError:
        raise ValueError(f"invalid {name} timestamp") from None
    return found


def _rfc3339(when: datetime) -> str:
    return when.isoformat().replace("+00:00", "Z")


def _source(name: str) -> dict[str, str]:
    status = {"name": name, "status": "missing" if name == "country" else "ok"}
    return {**status, "notes": SOURCES[name]} if SOURCES[name] else status


def _requests(used: Iterable[Used], kind: str) -> int:
    return sum(one.requests for one in used if one.kind == kind)


def _by_service(used: Sequence[Used]) -> list[dict[str, Any]]:
    return [
        {
            "key": name,
            "membership": "",
            "requests_count_total": _requests(own, SYNC) + _requests(own, JOB),
            "requests_count_sync": _requests(own, SYNC),
            "requests_count_async": _requests(own, JOB),
            "requests_count_exposed": _requests(own, EXPOSED),
            "unique_users_count": len({one.user for one in own if one.user}),
            "countries": [],
        }
        for name in sorted({one.service for one in used})
        if (own := [one for one in used if one.service == name])
    ]


def _with_users(item: dict[str, Any], used: Sequence[Used]) -> dict[str, Any]:
    """The users stand before the countries, and not where there are none."""
    users = sorted({one.user for one in used if one.user and one.service == item["key"]})
    before = {name: value for name, value in item.items() if name != "countries"}
    return {**before, **({"users": users} if users else {}), "countries": item["countries"]}


def _by_user(used: Sequence[Used]) -> list[dict[str, Any]]:
    """Calls through the API; who had a job run by an upload is not known."""
    called = [one for one in used if one.kind in (SYNC, ASYNC)]
    return [
        {
            "key": user,
            "membership": "external" if user == "oscar" else "member",
            "executions_count": sum(one.requests for one in called if one.user == user),
            "countries": [],
        }
        for user in sorted({one.user for one in called})
    ]


def _by_country(used: Sequence[Used]) -> list[dict[str, Any]]:
    called = [one for one in used if one.kind in (SYNC, ASYNC)]
    count = sum(one.requests for one in called)
    users = len({one.user for one in called if one.user})
    item = {
        "key": "unknown",
        "membership": "",
        "executions_count": count,
        "unique_users_count": users,
        "countries": [{"country": "unknown", "request_count": count}],
    }
    return [item] if count else []


def _csv(group: str, items: Sequence[dict[str, Any]]) -> str:
    counts = {
        "user": ("executions_count",),
        "country": ("executions_count", "unique_users_count"),
        "service": (
            "requests_count_total",
            "requests_count_sync",
            "requests_count_async",
            "requests_count_exposed",
            "unique_users_count",
        ),
    }
    names = ["key", "membership", *counts[group], "countries"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for item in items:
        countries = "|".join(f"{one['country']}:{one['request_count']}" for one in item["countries"])
        writer.writerow([*(item[name] for name in names[:-1]), countries])
    return text.getvalue()


def _refused(message: str) -> Response:
    return json_reply({"error": message}, 400)
