"""What an object has beside its contents: from the headers of a request, and back into those of an answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import parse_qsl

from infra.local.s3 import checksums
from infra.local.s3.errors import S3Error
from infra.local.stored import StoredObject

META = "x-amz-meta-"
KEPT = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")
DEFAULT_TYPE = "binary/octet-stream"
METADATA_BYTES = 8 * 1024
TAGS, TAG_NAME, TAG_VALUE = 10, 128, 256
REFUSED = ("x-amz-server-side-encryption", "x-amz-object-lock-")


@dataclass(frozen=True)
class Described:
    """An object's attributes as a request gives them."""

    content_type: str
    metadata: Mapping[str, str]
    headers: Mapping[str, str]
    tags: Mapping[str, str]


def describe(headers: Mapping[str, str]) -> Described:
    """The attributes in a request's headers.

    Raises:
        S3Error: they are too many, or ask for what is not done here (it is not passed over in silence).
    """
    for name in headers:
        if name.startswith(REFUSED):
            raise S3Error("NotImplemented", f"{name}: objects are neither encrypted nor locked by this store.")
    metadata = {name.removeprefix(META): value for name, value in headers.items() if name.startswith(META)}
    if sum(len(name) + len(value) for name, value in metadata.items()) > METADATA_BYTES:
        raise S3Error("MetadataTooLarge")
    kept = {name: headers[name] for name in KEPT if headers.get(name)}
    if "content-encoding" in kept:
        codings = [coding.strip() for coding in kept.pop("content-encoding").split(",")]
        if codings := [coding for coding in codings if coding and coding != "aws-chunked"]:
            kept["content-encoding"] = ",".join(codings)
    tags = parse_qsl(headers.get("x-amz-tagging", ""), keep_blank_values=True)
    return Described(headers.get("content-type") or DEFAULT_TYPE, metadata, kept, checked_tags(tags))


def checked_tags(pairs: list[tuple[str, str]], most: int = TAGS) -> dict[str, str]:
    """Tags, if S3 allows them."""
    tags = dict(pairs)
    if len(tags) != len(pairs):
        raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key")
    if len(tags) > most:
        raise S3Error("InvalidTag", f"Object tags cannot be greater than {most}")
    for name, value in tags.items():
        if not 0 < len(name) <= TAG_NAME or len(value) > TAG_VALUE:
            raise S3Error("InvalidTag", f"A tag's key has 1 to {TAG_NAME} characters, its value up to {TAG_VALUE}.")
    return tags


def as_headers(stored: StoredObject) -> dict[str, str]:
    """The headers that describe an object, but for its length."""
    return {
        "content-type": stored.content_type,
        "etag": f'"{stored.etag}"',
        "last-modified": formatdate(stored.modified, usegmt=True),
        "accept-ranges": "bytes",
        **stored.headers,
        **{f"{META}{name}": value for name, value in stored.metadata.items()},
        **({"x-amz-tagging-count": str(len(stored.tags))} if stored.tags else {}),
    }


def checksum_headers(request: Mapping[str, str], stored: StoredObject) -> dict[str, str]:
    """An object's checksums, if the request asks for them."""
    if request.get("x-amz-checksum-mode", "").upper() != "ENABLED":
        return {}
    return checksums.as_headers(stored.checksums)
