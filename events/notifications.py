"""What tells that an object has arrived. MinIO's bucket notification is described here once: built and parsed.

The shape is the one MinIO posts to a webhook (`EventName`, `Key` and exactly one entry in `Records`); AWS S3's own
notification, which has `Records` only, parses as well. `read` takes the events of other stores, too; each of those has
a module of its own beside this one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus, unquote_plus

REMOVED = "s3:ObjectRemoved:"


class NotificationError(ValueError):
    """The document is no bucket notification; the message names the field."""


@dataclass(frozen=True)
class Notification:
    """One event on one object; `provider` is the store it is in, as a `storage_provider` of an FDL names it.

    A store without buckets has an empty `bucket`; a space of Onedata counts as one.
    """

    bucket: str
    key: str
    event_name: str = "s3:ObjectCreated:Put"
    size: int = 0
    etag: str = ""
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    sequencer: str = ""
    time: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    principal: str = ""
    source_ip: str = ""
    user_agent: str = ""
    region: str = "us-east-1"
    endpoint: str = ""
    provider: str = "minio.default"


def build(notification: Notification) -> dict[str, Any]:
    """The JSON document that MinIO posts: top-level `Key` as it is, `object.key` form-URL-escaped."""
    stamp = notification.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    principal = {"principalId": notification.principal}
    record = {
        "eventVersion": "2.0",
        "eventSource": "minio:s3",
        "awsRegion": notification.region,
        "eventTime": stamp,
        "eventName": notification.event_name,
        "userIdentity": principal,
        "requestParameters": {
            **principal,
            "region": notification.region,
            "sourceIPAddress": notification.source_ip,
        },
        "responseElements": {
            "x-amz-id-2": "",
            "x-amz-request-id": notification.sequencer,
            "x-minio-deployment-id": "",
            "x-minio-origin-endpoint": notification.endpoint,
        },
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "Config",
            "bucket": {
                "name": notification.bucket,
                "ownerIdentity": principal,
                "arn": f"arn:aws:s3:::{notification.bucket}",
            },
            "object": {
                "key": quote_plus(notification.key),
                **_contents(notification),
                "sequencer": notification.sequencer,
            },
        },
        "source": {"host": notification.source_ip, "port": "", "userAgent": notification.user_agent},
    }
    return {
        "EventName": notification.event_name,
        "Key": f"{notification.bucket}/{notification.key}",
        "Records": [record],
    }


def _contents(notification: Notification) -> dict[str, Any]:
    """What there is to say of an object's contents: of an empty one no size, of one that was removed nothing."""
    if notification.event_name.startswith(REMOVED):
        return {}
    return {
        **({"size": notification.size} if notification.size else {}),
        "eTag": notification.etag,
        "contentType": notification.content_type,
        "userMetadata": dict(notification.metadata),
    }


def read(document: Any) -> list[Notification]:
    """Every object that an event tells of, whoever sends it; none where `document` is no event.

    Raises NotificationError, naming the field that is missing or of the wrong type.
    """
    if is_notification(document):
        return parse(document)
    if not isinstance(document, dict):
        return []
    if "event" in document and "subscription" in document:
        from events import dcache

        return [dcache.parse(document)]
    if "event_type" in document or "Records" in document:
        from events import onedata, rucio

        for kind in (rucio, onedata):
            if kind.is_event(document):
                return [kind.parse(document)]
    return []


def is_notification(document: Any) -> bool:
    """Whether `document` claims to be a bucket notification (of MinIO or AWS S3)."""
    return source_of(document) in ("minio:s3", "aws:s3")


def source_of(document: Any) -> str:
    """The `eventSource` of the first record; empty where there is none."""
    records = document.get("Records") if isinstance(document, dict) else None
    if not isinstance(records, list) or not records or not isinstance(records[0], dict):
        return ""
    source = records[0].get("eventSource")
    return source if isinstance(source, str) else ""


def parse(document: Any) -> list[Notification]:
    """Every record of a bucket notification, in order.

    Raises NotificationError, naming the field that is missing or of the wrong type.
    """
    if not is_notification(document):
        raise NotificationError("Records: no bucket notification; a MinIO or S3 event is expected")
    return [_parse_record(record, f"Records[{index}]") for index, record in enumerate(document["Records"])]


def _parse_record(record: Any, where: str) -> Notification:
    if not isinstance(record, dict):
        raise NotificationError(f"{where}: is no JSON object")
    s3 = mapping(record, "s3", where)
    bucket = text(mapping(s3, "bucket", f"{where}.s3"), "name", f"{where}.s3.bucket")
    entry = mapping(s3, "object", f"{where}.s3")
    request = _optional(record, "requestParameters", where)
    source = _optional(record, "source", where)
    metadata = _optional(entry, "userMetadata", f"{where}.s3.object")
    size = entry.get("size") or 0
    if not isinstance(size, int):
        raise NotificationError(f"{where}.s3.object.size: is no whole number")
    return Notification(
        bucket=bucket,
        key=unquote_plus(text(entry, "key", f"{where}.s3.object")),
        event_name=str(record.get("eventName", "")),
        size=size,
        etag=str(entry.get("eTag", "")),
        content_type=str(entry.get("contentType", "")),
        metadata={str(name): str(value) for name, value in metadata.items()},
        sequencer=str(entry.get("sequencer", "")),
        time=moment(str(record.get("eventTime", "")), where),
        principal=str(request.get("principalId", "")),
        source_ip=str(request.get("sourceIPAddress", "")),
        user_agent=str(source.get("userAgent", "")),
        region=str(record.get("awsRegion", "")),
        provider="s3.default" if record.get("eventSource") == "aws:s3" else "minio.default",
    )


def mapping(document: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """The JSON object in a field. Raises NotificationError where there is none."""
    value = document.get(name)
    if not isinstance(value, dict):
        raise NotificationError(f"{where}.{name}: is missing")
    return value


def _optional(document: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = document.get(name) or {}
    if not isinstance(value, dict):
        raise NotificationError(f"{where}.{name}: is no JSON object")
    return value


def text(document: Mapping[str, Any], name: str, where: str) -> str:
    """The text in a field. Raises NotificationError where it is empty or no text."""
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise NotificationError(f"{where}.{name}: is missing")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise NotificationError(f"{where}.{name}: has half a character (a lone surrogate); it is no Unicode text")
    return value


def moment(written: str, where: str) -> datetime:
    """The time in the field `eventTime`, 1970 where it is empty. Raises NotificationError where it is no time."""
    if not written:
        return datetime(1970, 1, 1, tzinfo=UTC)
    try:
        time = datetime.fromisoformat(written)
    except ValueError:
        raise NotificationError(
            f'{where}.eventTime: "{written}" is no time; write it as 2026-01-31T12:00:00.000Z'
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
