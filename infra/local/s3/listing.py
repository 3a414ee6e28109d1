"""Listings: ListObjects of both versions, and of object versions, of which there is one each."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass

from infra.local.listing import Entry, Page
from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import S3, owner
from infra.local.s3.request import Request, Response, xml_response
from infra.local.s3.xml import document, element, moment, tag, url_encoded

LIMIT = 1000


@dataclass(frozen=True)
class _Wanted:
    """What every listing is asked for."""

    prefix: str
    delimiter: str
    encoding: str
    limit: int

    def key(self, name: str, value: str) -> str:
        """An element with a key in it."""
        return tag(name, url_encoded(value, self.encoding))


async def list_objects(s3: S3, request: Request) -> Response:
    """ListObjects, the first version."""
    wanted = _wanted(request)
    marker = request.query.get("marker", "")
    page = s3.store.list(request.bucket, wanted.prefix, wanted.delimiter, marker, wanted.limit)
    return xml_response(
        document(
            "ListBucketResult",
            *_head(request, wanted, page),
            wanted.key("Marker", marker),
            wanted.key("NextMarker", page.next) if page.next is not None else "",
            *_contents(wanted, page, show_owner=True),
        )
    )


async def list_objects_2(s3: S3, request: Request) -> Response:
    """ListObjects, the second version."""
    wanted = _wanted(request)
    token, start = request.query.get("continuation-token", ""), request.query.get("start-after", "")
    after = _from_token(token) if token else start
    page = s3.store.list(request.bucket, wanted.prefix, wanted.delimiter, after, wanted.limit)
    return xml_response(
        document(
            "ListBucketResult",
            *_head(request, wanted, page),
            tag("KeyCount", len(page.objects) + len(page.prefixes)),
            wanted.key("StartAfter", start) if start else "",
            tag("ContinuationToken", token) if token else "",
            tag("NextContinuationToken", _as_token(page.next)) if page.next is not None else "",
            *_contents(wanted, page, show_owner=request.query.get("fetch-owner") == "true"),
        )
    )


async def list_versions(s3: S3, request: Request) -> Response:
    """ListObjectVersions: the one version of each object, which has no name."""
    wanted = _wanted(request)
    marker = request.query.get("key-marker", "")
    page = s3.store.list(request.bucket, wanted.prefix, wanted.delimiter, marker, wanted.limit)
    return xml_response(
        document(
            "ListVersionsResult",
            *_head(request, wanted, page),
            wanted.key("KeyMarker", marker),
            tag("VersionIdMarker", request.query.get("version-id-marker", "")),
            wanted.key("NextKeyMarker", page.next) + tag("NextVersionIdMarker", "null")
            if page.next is not None
            else "",
            *(
                element("Version", _entry(wanted, entry), tag("VersionId", "null"), tag("IsLatest", True), owner())
                for entry in page.objects
            ),
            *_prefixes(wanted, page),
        )
    )


def _wanted(request: Request) -> _Wanted:
    encoding = request.query.get("encoding-type", "")
    if encoding not in ("", "url"):
        raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request")
    limit = request.number("max-keys", LIMIT, 0, LIMIT)
    return _Wanted(request.query.get("prefix", ""), request.query.get("delimiter", ""), encoding, limit)


def _head(request: Request, wanted: _Wanted, page: Page) -> tuple[str, ...]:
    return (
        tag("Name", request.bucket),
        wanted.key("Prefix", wanted.prefix),
        wanted.key("Delimiter", wanted.delimiter) if wanted.delimiter else "",
        tag("MaxKeys", wanted.limit),
        tag("EncodingType", wanted.encoding) if wanted.encoding else "",
        tag("IsTruncated", page.next is not None),
    )


def _contents(wanted: _Wanted, page: Page, *, show_owner: bool) -> list[str]:
    shown = owner() if show_owner else ""
    return [*(element("Contents", _entry(wanted, entry), shown) for entry in page.objects), *_prefixes(wanted, page)]


def _entry(wanted: _Wanted, entry: Entry) -> str:
    """The elements of one object; only its key needs care, and a page has a thousand of these."""
    return (
        f"{wanted.key('Key', entry.key)}<LastModified>{moment(entry.modified)}</LastModified>"
        f"<ETag>&quot;{entry.etag}&quot;</ETag><Size>{entry.size}</Size><StorageClass>STANDARD</StorageClass>"
    )


def _prefixes(wanted: _Wanted, page: Page) -> list[str]:
    return [element("CommonPrefixes", wanted.key("Prefix", prefix)) for prefix in page.prefixes]


def _as_token(key: str) -> str:
    return urlsafe_b64encode(key.encode()).decode()


def _from_token(token: str) -> str:
    try:
        return urlsafe_b64decode(token.encode()).decode()
    except (Base64Error, ValueError):
        raise S3Error("InvalidArgument", "The continuation token provided is incorrect") from None
