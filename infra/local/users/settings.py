"""What a cluster is told of its issuers, by the environment; the names are the real server's."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

ENABLE, ISSUERS, GROUPS = "OIDC_ENABLE", "OIDC_ISSUERS", "OIDC_GROUPS"
AUDIENCES = "DIOSCAR_OIDC_AUDIENCES"
OVERSEERS = "USERS_ADMIN"
ANY_GROUP = "*"
TRUE, FALSE = ("true", "1", "t"), ("false", "0", "f", "")
"""As Go reads a flag, in any case."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class OidcSettings:
    """Which tokens are let in."""

    issuers: tuple[str, ...]
    groups: tuple[str, ...]
    """A user must be in one of these; `*`: every account of the issuers."""
    audiences: tuple[str, ...] = ()
    """A token must be meant for one of these; none: it is not asked, as OSCAR does not."""
    overseers: tuple[str, ...] = ()
    """Users who may read the logs of the whole cluster."""


def oidc_settings(environ: Mapping[str, str]) -> OidcSettings | None:
    """What the environment says; None where OIDC is off. Raises ValueError, naming the variable."""
    on = environ.get(ENABLE, "").strip().lower()
    if on in FALSE:
        return None
    if on not in TRUE:
        raise ValueError(f'{ENABLE}: "{on}" is neither true nor false')
    issuers = _list(environ, ISSUERS)
    if not issuers:
        raise ValueError(f'{ISSUERS}: is empty; name the issuers, e.g. "https://aai.egi.eu/auth/realms/egi"')
    for issuer in issuers:
        _check_url(issuer)
    groups = _list(environ, GROUPS)
    if not groups:
        raise ValueError(f'{GROUPS}: is empty, so that nobody could get in; name the groups, or write "{ANY_GROUP}"')
    return OidcSettings(issuers, groups, _list(environ, AUDIENCES), _list(environ, OVERSEERS))


def is_secure(url: str) -> bool:
    """Whether what is fetched from there cannot be changed on the way: over TLS, or from this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def _check_url(issuer: str) -> None:
    try:
        parts = urlsplit(issuer)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f'{ISSUERS}: "{issuer}" is no issuer; write its URL as its tokens have it in "iss"')
    if not is_secure(issuer):
        raise ValueError(f'{ISSUERS}: "{issuer}" is not https; keys that came over http could be anybody\'s')


def _list(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in environ.get(name, "").split(",") if part.strip()))
