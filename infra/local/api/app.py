"""OSCAR's REST API over an engine."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.local.api.authentication import Handler, basic
from infra.local.api.events import EventRoutes
from infra.local.api.information import InformationRoutes
from infra.local.api.invocation import InvocationRoutes
from infra.local.api.logs import LogRoutes
from infra.local.api.own import OwnRoutes
from infra.local.api.replay import ReplayRoutes
from infra.local.api.replies import empty, text_reply
from infra.local.api.services import ServiceRoutes
from infra.local.database import DatabaseError, DiskFull
from infra.local.engine import Engine
from infra.local.external.link import Link
from infra.local.objects import StoreError
from infra.local.settings import Credentials, StoreAddress
from infra.local.webhooks import Webhooks
from layers.objects.errors import ObjectError


def make_app(
    engine: Engine,
    webhooks: Webhooks,
    credentials: Credentials,
    *,
    address: StoreAddress,
    data: Path,
    link: Link | None = None,
) -> Starlette:
    """The ASGI application; `address` is what services and clients are told, `link` the way to another store."""
    information = InformationRoutes(credentials, address)
    services = ServiceRoutes(engine, address)
    invocation = InvocationRoutes(engine)
    logs = LogRoutes(engine)
    own = OwnRoutes(engine, webhooks, data)
    replay = ReplayRoutes(engine, link)

    def system(method: str, path: str, handler: Handler) -> Route:
        return Route(path, basic(credentials, handler), methods=[method])

    elsewhere: list[Route] = []
    if link is not None:
        told = EventRoutes(link, credentials.events_token)
        elsewhere = [
            Route("/dioscar/v1/events", told.receive, methods=["POST"]),
            system("GET", "/dioscar/v1/store", told.health),
        ]

    return Starlette(
        routes=[
            *elsewhere,
            Route("/health", information.health),
            Route("/run/{service}", invocation.run, methods=["POST"]),
            Route("/job/{service}", invocation.job, methods=["POST"]),
            system("GET", "/system/info", information.info),
            system("GET", "/system/config", information.config),
            system("GET", "/system/services", services.list),
            system("POST", "/system/services", services.create),
            system("PUT", "/system/services", services.update),
            system("GET", "/system/services/{service}", services.read),
            system("DELETE", "/system/services/{service}", services.delete),
            system("GET", "/system/logs/{service}", logs.list),
            system("DELETE", "/system/logs/{service}", logs.delete_all),
            system("GET", "/system/logs/{service}/{job}", logs.read),
            system("DELETE", "/system/logs/{service}/{job}", logs.delete),
            system("GET", "/metrics", own.metrics),
            system("GET", "/dioscar/v1/status", own.status),
            system("GET", "/dioscar/v1/jobs", own.jobs),
            system("GET", "/dioscar/v1/jobs/{job}", own.job),
            system("POST", "/dioscar/v1/jobs/{job}/cancel", own.cancel),
            system("GET", "/dioscar/v1/jobs/{job}/log", own.log),
            system("POST", "/dioscar/v1/jobs/{job}/replay", replay.job),
            system("POST", "/dioscar/v1/replay", replay.many),
            system("POST", "/dioscar/v1/backup", own.backup),
        ],
        exception_handlers={
            DiskFull: _disk_full,
            DatabaseError: _unavailable,
            StoreError: _refused,
            ObjectError: _unavailable,
            Exception: _internal_error,
        },
    )


async def _disk_full(request: Request, error: Exception) -> Response:
    return text_reply(f"{error}; make room and try again", 507)


async def _unavailable(request: Request, error: Exception) -> Response:
    return text_reply(f"{error}; try again", 503)


async def _refused(request: Request, error: Exception) -> Response:
    return text_reply(str(error), 400)


async def _internal_error(request: Request, error: Exception) -> Response:
    """OSCAR answers a defect of its own with 500 and nothing; ours is in the cluster's log."""
    return empty(500)
