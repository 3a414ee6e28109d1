"""What the object store speaks of: objects, buckets, who asked, and what can be wrong; errors carry S3's own codes."""

import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field

KEY_BYTES = 1024
NAME = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class StoreError(Exception):
    """The store refuses; `code` is S3's word for it, the message says it in a sentence."""

    code = "InternalError"


class NoSuchBucket(StoreError):  # noqa: N818
    """There is no bucket of that name."""

    code = "NoSuchBucket"

    def __init__(self, bucket: str) -> None:
        super().__init__(f'there is no bucket "{bucket}"')
        self.bucket = bucket


class NoSuchKey(StoreError):  # noqa: N818
    """There is no such object, or no longer."""

    code = "NoSuchKey"


class BucketExists(StoreError):  # noqa: N818
    """A bucket of that name is there already."""

    code = "BucketAlreadyOwnedByYou"


class BucketNotEmpty(StoreError):  # noqa: N818
    """A bucket with objects in it is deleted only by force."""

    code = "BucketNotEmpty"


class InvalidBucketName(StoreError):  # noqa: N818
    """The name is none that S3 allows."""

    code = "InvalidBucketName"


class InvalidKey(StoreError):  # noqa: N818
    """The key is empty, has a NUL or is no Unicode text."""

    code = "InvalidArgument"


class KeyTooLong(InvalidKey):
    """The key is longer than 1,024 bytes of UTF-8."""

    code = "KeyTooLongError"


class BucketForbidden(StoreError):  # noqa: N818
    """The bucket is somebody else's, and not shared with who asks."""

    code = "AccessDenied"


class UnknownTarget(StoreError):  # noqa: N818
    """A notification names a target that is not there; in MinIO's own words."""

    code = "InvalidArgument"

    def __init__(self) -> None:
        super().__init__(
            "A specified destination ARN does not exist or is not well-formed. Verify the destination ARN."
        )


@dataclass(frozen=True)
class Origin:
    """Who had an object made, and from where."""

    principal: str = ""
    source_ip: str = ""
    user_agent: str = ""
    request_id: str = ""
    user: str = ""
    """The user's uid, where it was not the administrator."""


@dataclass(frozen=True)
class StoredObject:
    """One version of an object; `modified` in seconds since 1970, `parts` the sizes of a multipart upload's parts."""

    id: int
    bucket: str
    key: str
    size: int
    etag: str
    sha256: str
    content_type: str
    metadata: Mapping[str, str]
    modified: float
    blob: int
    headers: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Bucket:
    """A bucket and what it holds; `service` is the one it was made for, if any.

    `visibility` is `private`, `restricted` (to `allowed_users`) or `public`; empty where nobody has said (private).
    """

    name: str
    created: float
    owner: str = ""
    service: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    objects: int = 0
    bytes: int = 0
    visibility: str = ""
    allowed_users: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notification:
    """Which events on which keys of a bucket go to the target `arn`; an event may end in `*`."""

    id: str
    arn: str
    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""

    def matches(self, key: str, event_name: str) -> bool:
        """Whether an event on `key` is one of these."""
        return (
            key.startswith(self.prefix)
            and key.endswith(self.suffix)
            and any(
                event_name.startswith(event[:-1]) if event.endswith("*") else event == event_name
                for event in self.events
            )
        )


def check_bucket_name(name: str) -> None:
    """Raise InvalidBucketName unless S3 allows `name`.

    >>> check_bucket_name("pulsar-classify")
    >>> check_bucket_name("192.168.0.1")
    Traceback (most recent call last):
    ...
    infra.local.stored.InvalidBucketName: "192.168.0.1" is no bucket name: 3 to 63 of a-z, 0-9, "-" and "."
    """
    if not NAME.fullmatch(name):
        raise InvalidBucketName(f'"{name}" is no bucket name: 3 to 63 of a-z, 0-9, "-" and "."')


def check_key(key: str) -> None:
    """Raise InvalidKey unless `key` is text of 1 to 1,024 bytes without NUL."""
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise InvalidKey("the key is no Unicode text") from None
    if not encoded or b"\0" in encoded:
        raise InvalidKey("the key is empty" if not encoded else "the key has a NUL character")
    if len(encoded) > KEY_BYTES:
        raise KeyTooLong(f"the key has {len(encoded)} bytes of UTF-8; at most {KEY_BYTES} are allowed")


def dump(mapping: Mapping[str, str]) -> str:
    """A small mapping as the database keeps it."""
    return json.dumps(dict(mapping), separators=(",", ":")) if mapping else "{}"


def load(text: str) -> Mapping[str, str]:
    """What `dump` wrote."""
    result: dict[str, str] = json.loads(text) if text != "{}" else {}
    return result


def object_of(row: sqlite3.Row) -> StoredObject:
    """A row of `objects` joined with its bucket's name."""
    return StoredObject(
        id=row["id"],
        bucket=row["bucket_name"],
        key=row["key"],
        size=row["size"],
        etag=row["etag"],
        sha256=row["sha256"],
        content_type=row["content_type"],
        metadata=load(row["metadata"]),
        modified=row["modified"],
        blob=row["blob"],
        headers=load(row["headers"]),
        tags=load(row["tags"]),
        checksums=load(row["checksums"]),
        parts=tuple(json.loads(row["parts"])) if row["parts"] != "[]" else (),
    )
