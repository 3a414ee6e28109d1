"""Exposed services: stopped, started and restarted, asked for their state, and reached at `/exposed`."""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import overload

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.local.api.authentication import Doors
from infra.local.api.deployment import MOST, DeploymentRoutes, Runtime
from infra.local.api.replies import empty, json_reply, text_reply
from infra.local.calls import EXPOSED, Calls
from infra.local.engine import Engine
from infra.local.exposed import access
from infra.local.exposed.exposures import Exposures
from infra.local.exposed.instance import Instance, State
from infra.local.exposed.log import ServiceLog
from infra.local.exposed.proxy import ExposedProxy
from infra.local.services import Deployed
from infra.local.settings import Credentials
from infra.local.users import policy
from infra.local.volumes import namespace_of

SERVICE = "/system/services/{service}"


class ExposedRoutes:
    """OSCAR's routes for exposed services over those of a cluster."""

    def __init__(
        self, engine: Engine, exposures: Exposures, deployments: DeploymentRoutes, doors: Doors, calls: Calls
    ) -> None:
        self._services = engine.services
        self._calls = calls
        self._exposures = exposures
        self._deployments = deployments
        self._doors = doors
        deployments.inspectors.append(self._runtime)

    def routes(self, credentials: Credentials) -> list[BaseRoute]:
        """All of them; `/exposed` is for whom each service lets in."""
        administrator = (credentials.oscar_username, credentials.oscar_password)
        proxy = _Counted(ExposedProxy(self._exposures, administrator, self.authenticate), self._calls)
        exposed = (f"{SERVICE}/exposed", f"{SERVICE}/exposed/{{rest:path}}")
        actions = {"stop": Instance.stop, "start": Instance.start, "restart": Instance.restart}
        return [
            *(Route(path, proxy) for path in exposed),
            *(WebSocketRoute(path, proxy) for path in exposed),
            Route(f"{SERVICE}/auth", self.authenticate, methods=["GET"]),
            *(
                Route(f"{SERVICE}/{name}", self._doors.anyone(self._lifecycle(action)), methods=["POST"])
                for name, action in actions.items()
            ),
        ]

    async def authenticate(self, request: Request) -> Response:
        """200 for whom the service's token, or what they may see, lets in; a token is given back as a cookie."""
        name = request.path_params["service"]
        given = access.tokens(name, request.headers, request.url.query)
        basic = request.headers.get("authorization", "").lower().startswith("basic ")
        if basic or not given:
            return await self._doors.anyone(self._permitted)(request)
        deployed = self._services.get(name)
        if deployed is None:
            return empty(404)
        if not access.bears_token(deployed, given):
            return text_reply(f"this is not the token of {name}; GET /system/services/{name} shows it", 401)
        response = empty(200)
        secure = "https" in (request.url.scheme, request.headers.get("x-forwarded-proto", "").lower())
        response.headers["Set-Cookie"] = access.cookie(deployed, secure=secure)
        return response

    async def _permitted(self, request: Request) -> Response:
        deployed = self._services.get(request.path_params["service"])
        if deployed is None:
            return empty(404)
        return empty(200 if policy.sees_service(request.state.user, deployed) else 403)

    def _lifecycle(self, action: Callable[[Instance], Awaitable[None]]) -> Callable[[Request], Awaitable[Response]]:
        async def act(request: Request) -> Response:
            deployed = self._services.get(request.path_params["service"])
            user = request.state.user
            if deployed is None:
                return empty(404)
            if not policy.changes_service(user, deployed):
                return text_reply(f"User {user.uid} doesn't have permission to manage this service", 403)
            instance = self._exposures.get(deployed.name)
            if instance is None:
                return text_reply(f'service "{deployed.name}" is not exposed', 400)
            try:
                await action(instance)
            except OSError as error:
                return text_reply(
                    f"{deployed.name}: this cannot be kept ({error.strerror}); make room and try again", 507
                )
            names = {"service_name": deployed.name, "namespace": namespace_of(deployed.owner)}
            return json_reply({**names, **self._deployments.runtime(deployed).summary()})

        return act

    def _runtime(self, deployed: Deployed) -> Runtime | None:
        """An exposed service as deployments are described."""
        instance = self._exposures.get(deployed.name)
        if instance is None:
            return None
        status = instance.status
        return Runtime(
            str(status.state),
            status.reason,
            "exposed_service",
            active=int(status.running),
            affected=int(status.running and status.state != State.READY),
            since=status.since,
            lines=_Lines(instance.log),
        )


class _Counted:
    """An application whose answers count as calls of a service, where they are no refusals."""

    def __init__(self, app: ASGIApp, calls: Calls) -> None:
        self._app = app
        self._calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began, welcome = time.time(), False

        async def seen(message: Message) -> None:
            nonlocal welcome
            kind = message["type"]
            welcome |= kind == "websocket.accept" or (kind == "http.response.start" and message["status"] < 400)
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            if welcome:
                self._calls.count(scope["path_params"]["service"], EXPOSED, began)


class _Lines(Sequence[tuple[str, str]]):
    """The end of a service's log, read when somebody looks at it."""

    def __init__(self, log: ServiceLog) -> None:
        self._log = log

    @cached_property
    def _read(self) -> list[tuple[str, str]]:
        return self._log.tail(MOST)

    def __len__(self) -> int:
        return len(self._read)

    @overload
    def __getitem__(self, index: int) -> tuple[str, str]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[str, str]]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, str] | list[tuple[str, str]]:
        return self._read[index]
