"""Who may ask: HTTP Basic on `/system` and `/dioscar`, the service's token on `/run` and `/job`."""

import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from infra.local.api.replies import text_reply
from infra.local.services import Deployed, Services
from infra.local.settings import Credentials
from infra.local.users.identity import ADMINISTRATOR

Handler = Callable[[Request], Awaitable[Response]]
TOKEN_LENGTH = 64


def basic(credentials: Credentials, handler: Handler) -> Handler:
    """`handler` for those who know user name and password; 401 with OSCAR's challenge for the others.

    Who asks is `request.state.user`, an `infra.local.users.identity.User`.
    """

    async def checked(request: Request) -> Response:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic" or not _matches(value, credentials):
            response = text_reply("the user name or the password is wrong; `dioscar config` shows both", 401)
            response.headers["WWW-Authenticate"] = 'Basic realm="Authorization Required"'
            return response
        request.state.user = ADMINISTRATOR
        return await handler(request)

    return checked


def by_token(headers: Mapping[bytes, bytes], service: str, services: Services) -> Deployed | None:
    """The service of that name, if a request bears its token; Basic credentials do not count, as in OSCAR."""
    words = headers.get(b"authorization", b"").split()
    deployed = services.get(service)
    token = words[1] if len(words) == 2 and words[0] == b"Bearer" else b""
    expected = deployed.token if deployed else "0" * TOKEN_LENGTH
    same = hmac.compare_digest(token, expected.encode())
    return deployed if same and deployed is not None else None


def refused(service: str) -> Response:
    """The answer to a wrong token, the same whether the service exists or not."""
    sentence = f'this is not the token of a service "{service}"; GET /system/services/{service} shows it'
    return text_reply(sentence, 401)


def _matches(value: str, credentials: Credentials) -> bool:
    try:
        given = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, f"{credentials.oscar_username}:{credentials.oscar_password}".encode())
