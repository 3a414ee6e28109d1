"""Who may ask: the administrator or a user on `/system` and `/dioscar`, who bears a token on `/run` and `/job`."""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from infra.local.api.replies import empty, text_reply
from infra.local.services import Deployed, Services
from infra.local.settings import Credentials
from infra.local.users import policy
from infra.local.users.identity import ADMINISTRATOR, User
from infra.local.users.refusals import Refused
from infra.local.users.users import Users

Handler = Callable[[Request], Awaitable[Response]]
TOKEN_LENGTH = 64


class Doors:
    """The ways in; who asks is the handler's `request.state.user`. Without `users`, only the administrator gets in."""

    def __init__(self, credentials: Credentials, users: Users | None = None) -> None:
        self._credentials = credentials
        self._users = users

    def administrator(self, handler: Handler) -> Handler:
        """`handler` for those who know user name and password; 401 or 403 for the others."""

        async def checked(request: Request) -> Response:
            if self._users is not None and _bearer(request):
                return text_reply("only the administrator of this cluster may do this", 403)
            return await self._as_administrator(request, handler)

        return checked

    def anyone(self, handler: Handler) -> Handler:
        """`handler` for the administrator and for users, whom it must show no more than is theirs."""

        async def checked(request: Request) -> Response:
            token = _bearer(request) if self._users is not None else ""
            if self._users is None or not token:
                return await self._as_administrator(request, handler)
            try:
                request.state.user = await self._users.bearer(token)
            except Refused as error:
                return turned_away(error)
            return await handler(request)

        return checked

    async def _as_administrator(self, request: Request, handler: Handler) -> Response:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic" or not _matches(value, self._credentials):
            response = text_reply("the user name or the password is wrong; `dioscar config` shows both", 401)
            response.headers["WWW-Authenticate"] = 'Basic realm="Authorization Required"'
            return response
        request.state.user = ADMINISTRATOR
        return await handler(request)


class Callers:
    """Who may call a service: who bears its token (Basic does not count, as in OSCAR), or a user who sees it."""

    def __init__(self, services: Services, users: Users | None = None) -> None:
        self._services = services
        self._users = users

    async def called(self, headers: Mapping[bytes, bytes], service: str) -> tuple[Deployed, User | None] | Response:
        """The service, and the user who calls it where it is not for the service's own token; or the refusal."""
        deployed = self._services.get(service)
        words = headers.get(b"authorization", b"").split()
        token = words[1] if len(words) == 2 and words[0] == b"Bearer" else b""
        expected = deployed.token if deployed else "0" * TOKEN_LENGTH
        same = hmac.compare_digest(token, expected.encode())
        if same and deployed is not None:
            return deployed, None
        if self._users is None or not token or len(token) == TOKEN_LENGTH:
            return refused(service)
        try:
            user = await self._users.bearer(token.decode("latin-1"))
        except Refused as error:
            return turned_away(error)
        if deployed is None or not policy.sees_service(user, deployed):
            return empty(404)
        return deployed, user


def refused(service: str) -> Response:
    """The answer to a wrong token, the same whether the service exists or not."""
    sentence = f'this is not the token of a service "{service}"; GET /system/services/{service} shows it'
    return text_reply(sentence, 401)


def turned_away(error: Refused) -> Response:
    """The answer to a user's token that is not taken."""
    response = text_reply(str(error), error.status)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
    return response


def _bearer(request: Request) -> str:
    """The token of a request that has one, as OSCAR tells it: by the word before it."""
    header = request.headers.get("authorization", "")
    return header.removeprefix("Bearer ").strip() if header.startswith("Bearer ") else ""


def _matches(value: str, credentials: Credentials) -> bool:
    try:
        given = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, f"{credentials.oscar_username}:{credentials.oscar_password}".encode())
