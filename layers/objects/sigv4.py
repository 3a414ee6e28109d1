"""AWS Signature Version 4 for S3: what a client signs, and what a server computes again to believe it.

Pure functions: the clock is an argument. The steps carry the names of the AWS documentation ("Authenticating Requests:
AWS Signature Version 4", Amazon S3 API Reference): canonical request, string to sign, signing key, signature.
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = sha256(b"").hexdigest()
TIMESTAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Credentials:
    """An access key and its secret; the secret stays out of every `repr`."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True)
class Scope:
    """The credential scope: the day, region and service that a signing key is good for."""

    day: str
    region: str
    service: str = "s3"

    def __str__(self) -> str:
        return f"{self.day}/{self.region}/{self.service}/aws4_request"


def timestamp(now: datetime) -> str:
    """`now` as a request carries it.

    >>> timestamp(datetime(2026, 5, 17, 8, 30, tzinfo=UTC))
    '20260517T083000Z'
    """
    return now.astimezone(UTC).strftime(TIMESTAMP)


def quote_path(path: str) -> str:
    """A path as S3 signs it: encoded once, segments such as `..` and empty ones left alone.

    >>> quote_path("/bucket/a b/../ö+")
    '/bucket/a%20b/../%C3%B6%2B'
    """
    return quote(path, safe="/~")


def canonical_query(parameters: Iterable[tuple[str, str]]) -> str:
    """Names and values, decoded, in the encoding and order of a canonical request; also fit for a URL.

    >>> canonical_query([("prefix", "in/ü"), ("list-type", "2"), ("acl", "")])
    'acl=&list-type=2&prefix=in%2F%C3%BC'
    """
    encoded = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in parameters)
    return "&".join(f"{name}={value}" for name, value in encoded)


def canonical_request(method: str, path: str, query: str, headers: Iterable[tuple[str, str]], payload: str) -> str:
    """The text that stands for a request: `path` and `query` already canonical, `headers` those to sign.

    `payload` is the value of `x-amz-content-sha256`. A header given twice is joined by a comma, in the order given.
    """
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(" ".join(value.split()))
    names = sorted(values)
    lines = "".join(f"{name}:{','.join(values[name])}\n" for name in names)
    return f"{method}\n{path}\n{query}\n{lines}\n{';'.join(names)}\n{payload}"


def string_to_sign(moment: str, scope: Scope, canonical: str) -> str:
    """What the signing key is applied to; `moment` is a `timestamp`, bytes that are no UTF-8 are escaped surrogates."""
    return f"{ALGORITHM}\n{moment}\n{scope}\n{sha256(canonical.encode('utf-8', 'surrogateescape')).hexdigest()}"


@lru_cache(maxsize=256)
def signing_key(secret_key: str, scope: Scope) -> bytes:
    """The key of one day, region and service."""
    key = f"AWS4{secret_key}".encode()
    for part in (scope.day, scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def signature(secret_key: str, scope: Scope, text: str) -> str:
    """The signature of a string to sign, in hexadecimal."""
    return hmac.digest(signing_key(secret_key, scope), text.encode(), "sha256").hex()


def sign(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    *,
    payload: str,
    credentials: Credentials,
    region: str,
    now: datetime,
) -> dict[str, str]:
    """The headers to send: those given (with `host` among them), the date, the payload's hash and `authorization`."""
    moment = timestamp(now)
    signed = {name.lower(): value for name, value in headers.items()}
    signed |= {"x-amz-date": moment, "x-amz-content-sha256": payload}
    scope = Scope(moment[:8], region)
    text = string_to_sign(moment, scope, canonical_request(method, path, query, signed.items(), payload))
    signed["authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key}/{scope}, SignedHeaders={';'.join(sorted(signed))}, "
        f"Signature={signature(credentials.secret_key, scope, text)}"
    )
    return signed


def presign(
    method: str,
    path: str,
    parameters: Iterable[tuple[str, str]],
    host: str,
    *,
    credentials: Credentials,
    region: str,
    now: datetime,
    expires_s: int,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """The query string that lets its bearer make one request for `expires_s` seconds, with these headers at least."""
    signed = {"host": host, **{name.lower(): value for name, value in headers.items()}}
    moment = timestamp(now)
    scope = Scope(moment[:8], region)
    query = canonical_query(
        [
            *parameters,
            ("X-Amz-Algorithm", ALGORITHM),
            ("X-Amz-Credential", f"{credentials.access_key}/{scope}"),
            ("X-Amz-Date", moment),
            ("X-Amz-Expires", str(expires_s)),
            ("X-Amz-SignedHeaders", ";".join(sorted(signed))),
        ]
    )
    canonical = canonical_request(method, path, query, signed.items(), UNSIGNED_PAYLOAD)
    text = string_to_sign(moment, scope, canonical)
    return f"{query}&X-Amz-Signature={signature(credentials.secret_key, scope, text)}"
