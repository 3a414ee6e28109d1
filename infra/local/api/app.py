"""OSCAR's REST API over an engine."""

import logging
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from infra.local.api.authentication import Doors, Handler
from infra.local.api.deployment import DeploymentRoutes
from infra.local.api.events import EventRoutes
from infra.local.api.exposed import ExposedRoutes
from infra.local.api.information import health
from infra.local.api.invocation import Invocations
from infra.local.api.logs import LogRoutes
from infra.local.api.oscar import oscar_routes
from infra.local.api.own import OwnRoutes
from infra.local.api.recording import Recording
from infra.local.api.replay import ReplayRoutes
from infra.local.api.replies import empty, text_reply
from infra.local.api.schedules import ScheduleRoutes
from infra.local.api.users import UserRoutes
from infra.local.database import DatabaseError, DiskFull
from infra.local.engine import Engine
from infra.local.exposed.exposures import Exposures
from infra.local.external.link import Link
from infra.local.holdings import Holdings
from infra.local.objects import StoreError
from infra.local.schedules.scheduler import Scheduler
from infra.local.settings import Credentials, StoreAddress
from infra.local.stored import BucketForbidden
from infra.local.users.users import Users
from infra.local.webhooks import Webhooks
from layers.objects.errors import ObjectError, StoreUnavailable

log = logging.getLogger("dioscar.api")


def make_app(
    engine: Engine,
    webhooks: Webhooks,
    holdings: Holdings,
    credentials: Credentials,
    *,
    address: StoreAddress,
    data: Path,
    link: Link | None = None,
    users: Users | None = None,
    exposures: Exposures,
    scheduler: Scheduler,
) -> ASGIApp:
    """The ASGI application; `address` is what services and clients are told, `link` the way to another store.

    Without `users`, only the administrator gets in.
    """
    deployments = DeploymentRoutes(engine)
    oscar = oscar_routes(engine, holdings, deployments, credentials, address, users, elsewhere=link is not None)
    logs = LogRoutes(engine)
    own = OwnRoutes(engine, webhooks, data)
    replay = ReplayRoutes(engine, link)

    doors = Doors(credentials, users)

    def system(method: str, path: str, handler: Handler) -> Route:
        return Route(path, doors.anyone(handler), methods=[method])

    def administration(method: str, path: str, handler: Handler) -> Route:
        return Route(path, doors.administrator(handler), methods=[method])

    where_set: list[Route] = []
    if link is not None:
        told = EventRoutes(link, credentials.events_token)
        where_set += [
            Route("/dioscar/v1/events", told.receive, methods=["POST"]),
            administration("GET", "/dioscar/v1/store", told.health),
        ]

    if users is not None:
        accounts = UserRoutes(users)
        where_set += [
            administration("GET", "/dioscar/v1/users", accounts.list),
            administration("DELETE", "/dioscar/v1/users/{uid:path}", accounts.remove),
        ]

    others = Starlette(
        routes=[
            *where_set,
            Route("/health", health),
            *(system(*route) for route in oscar),
            *ExposedRoutes(engine, exposures, deployments, doors, holdings.calls).routes(credentials),
            system("GET", "/system/logs/{service}", logs.list),
            system("DELETE", "/system/logs/{service}", logs.delete_all),
            system("GET", "/system/logs/{service}/{job}", logs.read),
            system("DELETE", "/system/logs/{service}/{job}", logs.delete),
            administration("GET", "/metrics", own.metrics),
            administration("GET", "/dioscar/v1/status", own.status),
            administration("GET", "/dioscar/v1/models", own.models),
            system("GET", "/dioscar/v1/jobs", own.jobs),
            system("GET", "/dioscar/v1/jobs/{job}", own.job),
            system("POST", "/dioscar/v1/jobs/{job}/cancel", own.cancel),
            system("GET", "/dioscar/v1/jobs/{job}/log", own.log),
            system("POST", "/dioscar/v1/jobs/{job}/replay", replay.job),
            administration("POST", "/dioscar/v1/replay", replay.many),
            administration("POST", "/dioscar/v1/backup", own.backup),
            *ScheduleRoutes(scheduler, engine).routes(doors),
        ],
        exception_handlers={
            **dict.fromkeys((DatabaseError, StoreError, ObjectError, Exception), _failed),
            **dict.fromkeys((404, 405), _nowhere),
            ClientDisconnect: _gone,
        },
    )
    return Recording(Invocations(engine, others, _answer_to, users), holdings.calls)


async def _nowhere(request: Request, error: Exception) -> Response:
    """No route has this method and path; in the words of OSCAR's server, which does not tell the two apart."""
    return text_reply("404 page not found", 404)


async def _gone(request: Request, error: Exception) -> Response:
    """The client left before it had said all: nobody hears this."""
    return empty(400)


async def _failed(request: Request, error: Exception) -> Response:
    return _answer_to(error)


def _answer_to(error: Exception) -> Response:
    """The answer to a request that could not be carried out."""
    if isinstance(error, DiskFull):
        return text_reply(f"{error}; make room and try again", 507)
    if isinstance(error, (DatabaseError, StoreUnavailable)):
        return text_reply(f"{error}; try again", 503)
    if isinstance(error, MemoryError):
        return text_reply("the cluster has no memory left for this; try again later", 503)
    if isinstance(error, (StoreError, ObjectError)):
        return text_reply(str(error), 403 if isinstance(error, BucketForbidden) else 400)
    log.error("a request failed", exc_info=error)
    return empty(500)  # OSCAR answers a defect of its own with nothing; ours is in the cluster's log
