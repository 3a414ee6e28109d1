"""Who may use an exposed service: everybody, or with `set_auth` those who know its token, in OSCAR's ways."""

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from infra.local.services import Deployed

TOKEN_LENGTH = 64


def is_basic(header: str, user: str, password: str) -> bool:
    """Whether an Authorization header is Basic, with this user name and password."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(given, f"{user}:{password}".encode())


def tokens(name: str, headers: Mapping[str, str], query: str) -> list[str]:
    """What may be the token of the service `name` in a request.

    As a Bearer, and without that as `token` of the query, also of the one in X-Forwarded-Uri, or in its cookie.
    """
    header = headers.get("authorization", "")
    if header.startswith("Bearer "):
        given = [header.removeprefix("Bearer ").strip()]
    else:
        elsewhere = _query_of(headers.get("x-forwarded-uri", ""))
        given = [*_asked(query), *_asked(elsewhere), _cookie(headers.get("cookie", ""), name)]
    return [one for one in given if len(one) == TOKEN_LENGTH]


def is_users(header: str) -> bool:
    """Whether an Authorization header has a Bearer that can be no service's token."""
    return header.startswith("Bearer ") and len(header.removeprefix("Bearer ").strip()) != TOKEN_LENGTH


def bears_token(deployed: Deployed, given: Iterable[str]) -> bool:
    """Whether one of these is the service's token."""
    return any(hmac.compare_digest(one.encode(), deployed.token.encode()) for one in given)


def cookie_name(service: str) -> str:
    """OSCAR's name for the cookie that bears a service's token.

    >>> cookie_name("veto-stream")
    'oscar_service_veto_stream_auth'
    """
    return f"oscar_service_{service.replace('-', '_')}_auth"


def cookie(deployed: Deployed, *, secure: bool) -> str:
    """The cookie that spares a browser the token in further addresses."""
    path = f"/system/services/{deployed.name}/exposed"
    parts = [f"{cookie_name(deployed.name)}={deployed.token}", f"Path={path}", "HttpOnly", "SameSite=Lax"]
    return "; ".join([*parts, "Secure"] if secure else parts)


def _asked(query: str) -> list[str]:
    try:
        return [value.strip() for value in parse_qs(query, max_num_fields=100).get("token", [])]
    except ValueError:
        return []


def _query_of(url: str) -> str:
    try:
        return urlsplit(url).query
    except ValueError:
        return ""


def _cookie(header: str, service: str) -> str:
    try:
        found = SimpleCookie(header).get(cookie_name(service))
    except CookieError:
        return ""
    return found.value.strip() if found else ""
