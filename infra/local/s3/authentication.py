"""Who asks: Signature V4 in the header or in the query, and the V2 query signature that boto3 makes by default.

Only a request whose signature holds gets past here; what its body must hash to is left for whoever reads the body.
"""

import hmac
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import product
from urllib.parse import unquote

from infra.local.s3.errors import S3Error
from infra.local.s3.request import Request, Signed
from layers.objects import sigv4
from layers.objects.sigv4 import Scope

Secrets = Callable[[str], str | None]

SKEW = timedelta(minutes=15)
LONGEST_S = 7 * 24 * 3600
QUERY = ["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-expires", "x-amz-signedheaders", "x-amz-signature"]
SUBRESOURCES = frozenset(
    [
        "acl",
        "cors",
        "delete",
        "lifecycle",
        "location",
        "logging",
        "notification",
        "partNumber",
        "policy",
        "requestPayment",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
    ]
)


@dataclass(frozen=True)
class _Claim:
    """What a request says about its signature."""

    access_key: str
    scope: Scope
    moment: str
    names: tuple[str, ...]
    signature: str
    payload: str


def authenticate(request: Request, secrets: Secrets, now: datetime) -> None:
    """Let a request pass whose signature holds; the signature and its principal are kept with the request.

    Raises:
        S3Error: there is none, or it does not hold.
    """
    authorization = request.headers.get("authorization", "")
    if authorization.startswith(sigv4.ALGORITHM):
        claim = _from_header(request, authorization, now)
    elif "X-Amz-Algorithm" in request.query:
        claim = _from_query(request, now)
        _hoist(request)
    elif "AWSAccessKeyId" in request.query:
        _second(request, secrets, now)
        return
    elif authorization:
        raise S3Error("InvalidRequest", f"The authorization mechanism is not supported. Please use {sigv4.ALGORITHM}.")
    else:
        raise S3Error("AccessDenied")
    secret = secret_of(secrets, claim.access_key)
    texts = (
        sigv4.string_to_sign(claim.moment, claim.scope, canonical) for canonical in _canonical_requests(request, claim)
    )
    given = claim.signature.encode("utf-8", "replace")
    if not any(hmac.compare_digest(sigv4.signature(secret, claim.scope, text).encode(), given) for text in texts):
        raise S3Error("SignatureDoesNotMatch")
    request.signed = Signed(claim.access_key, secret, claim.scope, claim.moment, claim.signature, claim.payload)


def _from_header(request: Request, authorization: str, now: datetime) -> _Claim:
    fields: dict[str, str] = {}
    for part in authorization.removeprefix(sigv4.ALGORITHM).split(","):
        name, _, value = part.strip().partition("=")
        fields[name] = value
    if not {"Credential", "SignedHeaders", "Signature"} <= fields.keys():
        raise S3Error("AuthorizationHeaderMalformed", "Credential, SignedHeaders and Signature are required.")
    access_key, scope = credential(fields["Credential"], "AuthorizationHeaderMalformed")
    moment, time = _date(request)
    if abs(now - time) > SKEW:
        raise S3Error("RequestTimeTooSkewed")
    if moment[:8] != scope.day:
        raise S3Error("AuthorizationHeaderMalformed", "The date of the credential is not that of the request.")
    payload = request.headers.get("x-amz-content-sha256", "")
    if not payload:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    names = _names(fields["SignedHeaders"])
    _check_names(request, names)
    return _Claim(access_key, scope, moment, names, fields["Signature"], payload)


def _from_query(request: Request, now: datetime) -> _Claim:
    malformed = "AuthorizationQueryParametersError"
    query = {name.lower(): value for name, value in request.query.items() if name.lower() in QUERY}
    if len(query) < len(QUERY) or query["x-amz-algorithm"] != sigv4.ALGORITHM:
        raise S3Error(malformed, f"Query-string authentication needs {sigv4.ALGORITHM} with all its parameters.")
    access_key, scope = credential(query["x-amz-credential"], malformed)
    moment = query["x-amz-date"]
    time = _parsed(moment)
    expires = query["x-amz-expires"]
    if time is None or moment[:8] != scope.day:
        raise S3Error(malformed, "X-Amz-Date must be in the ISO8601 Long Format and agree with the credential.")
    if not expires.isascii() or not expires.isdigit() or not 0 < int(expires[:9]) <= LONGEST_S or len(expires) > 9:
        raise S3Error(malformed, f"X-Amz-Expires must be a number of seconds between 1 and {LONGEST_S}.")
    if time - now > SKEW:
        raise S3Error("AccessDenied", "Request is not valid yet")
    if now > time + timedelta(seconds=int(expires)):
        raise S3Error("AccessDenied", "Request has expired")
    names = _names(query["x-amz-signedheaders"])
    _check_names(request, names)
    payload = request.query.get("X-Amz-Content-Sha256") or request.headers.get("x-amz-content-sha256", "")
    return _Claim(access_key, scope, moment, names, query["x-amz-signature"], payload or sigv4.UNSIGNED_PAYLOAD)


def _second(request: Request, secrets: Secrets, now: datetime) -> None:
    """A query signature of the second version (HMAC-SHA1), which is what boto3 makes unless it is told otherwise."""
    access_key, expires = request.query["AWSAccessKeyId"], request.query.get("Expires", "")
    if not expires.isascii() or not expires.isdigit() or len(expires) > 12:
        raise S3Error("AccessDenied", "Query-string authentication requires the Signature, Expires and AWSAccessKeyId.")
    if now.timestamp() > int(expires):
        raise S3Error("AccessDenied", "Request has expired")
    secret = secret_of(secrets, access_key)
    _hoist(request)
    headers = request.headers
    amz = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers) if name.startswith("x-amz-"))
    kept = sorted((name, value) for name, value in request.parameters if name in SUBRESOURCES)
    resource = "&".join(f"{name}={value}" if value else name for name, value in kept)
    text = (
        f"{request.method}\n{headers.get('content-md5', '')}\n{headers.get('content-type', '')}\n{expires}\n{amz}"
        f"{request.raw_path}{'?' if resource else ''}{resource}"
    )
    expected = b64encode(hmac.digest(secret.encode(), text.encode("utf-8", "surrogateescape"), "sha1"))
    if not hmac.compare_digest(expected, request.query.get("Signature", "").encode("utf-8", "replace")):
        raise S3Error("SignatureDoesNotMatch")
    payload = headers.get("x-amz-content-sha256", sigv4.UNSIGNED_PAYLOAD)
    request.signed = Signed(access_key, secret, Scope("", ""), "", "", payload)


def _canonical_requests(request: Request, claim: _Claim) -> Iterator[str]:
    """What the client may have signed: the path and query in S3's encoding, or else exactly as they were sent."""
    chosen = [(name, value) for name, value in request.header_list if name in claim.names]
    pairs = [(name, value) for name, value in request.parameters if name.lower() != "x-amz-signature"]
    sent = [pair if "=" in pair else f"{pair}=" for pair in request.raw_query.split("&") if pair]
    verbatim = "&".join(sorted(pair for pair in sent if not pair.lower().startswith("x-amz-signature=")))
    paths = dict.fromkeys((sigv4.quote_path(unquote(request.raw_path)), request.raw_path))
    queries = dict.fromkeys((sigv4.canonical_query(pairs), verbatim))
    for path, query in product(paths, queries):
        yield sigv4.canonical_request(request.method, path, query, chosen, claim.payload)


def secret_of(secrets: Secrets, access_key: str) -> str:
    """The secret of an access key, which must be known."""
    secret = secrets(access_key)
    if secret is None:
        raise S3Error("InvalidAccessKeyId")
    return secret


def credential(value: str, code: str) -> tuple[str, Scope]:
    """The access key and the scope in a credential; `code` is the error if it is none."""
    parts = value.rsplit("/", 4)
    if len(parts) != 5 or parts[3:] != ["s3", "aws4_request"]:
        raise S3Error(code, 'The credential must be "ACCESS-KEY/YYYYMMDD/REGION/s3/aws4_request".')
    return parts[0], Scope(parts[1], parts[2])


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in value.split(";"))


def _check_names(request: Request, names: Sequence[str]) -> None:
    """The host and every `x-amz-` header must be under the signature, and what is must be there."""
    if "host" not in names:
        raise S3Error("SignatureDoesNotMatch", "The host header must be signed.")
    if not request.headers.keys() >= set(names):
        raise S3Error("SignatureDoesNotMatch", "A signed header is missing.")
    for name in request.headers:
        if name.startswith("x-amz-") and name not in names and name != "x-amz-content-sha256":
            raise S3Error("AccessDenied", f"There were headers present in the request which were not signed: {name}")


def _date(request: Request) -> tuple[str, datetime]:
    """The request's time, as it is signed and as a number; `Date` stands in where `x-amz-date` is missing."""
    value = request.headers.get("x-amz-date", "")
    found = _parsed(value)
    if found is None and not value and "date" in request.headers:
        try:
            found = parsedate_to_datetime(request.headers["date"]).astimezone(UTC)
        except ValueError:
            found = None
        value = "" if found is None else sigv4.timestamp(found)
    if found is None:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    return value, found


def _parsed(value: str) -> datetime | None:
    if len(value) != 16 or value[8] != "T" or value[15] != "Z" or not value.isascii():
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError:
        return None


def _hoist(request: Request) -> None:
    """Headers that a presigning client has put into the query."""
    for name, value in request.query.items():
        lower = name.lower()
        if lower in ("content-type", "content-md5") or (lower.startswith("x-amz-") and lower not in QUERY):
            request.headers.setdefault(lower, value)
