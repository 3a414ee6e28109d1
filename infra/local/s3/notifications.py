"""Bucket notifications: which events on which keys go to which target."""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from infra.local.s3.buckets import find
from infra.local.s3.errors import S3Error
from infra.local.s3.handlers import S3
from infra.local.s3.payload import Payload
from infra.local.s3.request import Request, Response, xml_response
from infra.local.s3.xml import XmlError, children, document, element, local, tag, text
from infra.local.stored import Notification, UnknownTarget

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

EVENTS = frozenset(
    [
        "s3:ObjectCreated:*",
        "s3:ObjectCreated:Put",
        "s3:ObjectCreated:Post",
        "s3:ObjectCreated:Copy",
        "s3:ObjectCreated:CompleteMultipartUpload",
        "s3:ObjectRemoved:*",
        "s3:ObjectRemoved:Delete",
    ]
)
"""The events that there are here; asking for another one is refused rather than never answered."""


async def get_notifications(s3: S3, request: Request) -> Response:
    """What is set on a bucket."""
    find(s3, request)
    return xml_response(
        document("NotificationConfiguration", *(_element(one) for one in s3.store.notifications(request.bucket)))
    )


async def put_notifications(s3: S3, request: Request) -> Response:
    """Replace what is set on a bucket."""
    root = await Payload(request).document("NotificationConfiguration")
    try:
        wanted = [_notification(one) for one in root]
    except XmlError as error:
        raise S3Error("MalformedXML", str(error)) from None
    _check_distinct(wanted)
    if s3.guard is not None:
        known = {one.arn for one in s3.store.notifications(request.bucket)}
        if not all(one.arn in known or s3.guard.may_notify(request, one.arn) for one in wanted):
            raise UnknownTarget
    set_all = partial(s3.store.set_notifications, bucket=request.bucket, notifications=wanted)
    await s3.store.database.write(set_all)
    return Response(200)


def _notification(one: "Element") -> Notification:
    if local(one) != "QueueConfiguration":
        raise UnknownTarget  # MinIO's targets are queues; topics and functions are AWS's
    events = tuple((event.text or "").strip() for event in children(one, "Event"))
    if not events or not set(events) <= EVENTS:
        raise S3Error("InvalidArgument", "A specified event is not supported for notifications.")
    rules = dict(_rules(one))
    return Notification(
        text(one, "Id", "").strip(),
        text(one, "Queue").strip(),
        events,
        rules.get("prefix", ""),
        rules.get("suffix", ""),
    )


def _rules(one: "Element") -> Iterable[tuple[str, str]]:
    seen = set()
    for filters in children(one, "Filter"):
        for s3_key in children(filters, "S3Key"):
            for rule in children(s3_key, "FilterRule"):
                name = text(rule, "Name").strip().lower()
                if name not in ("prefix", "suffix"):
                    raise S3Error("InvalidArgument", "filter rule name must be either prefix or suffix")
                if name in seen:
                    raise S3Error("InvalidArgument", f"Cannot specify more than one {name} rule in a filter.")
                seen.add(name)
                yield name, text(rule, "Value", "")


def _check_distinct(wanted: list[Notification]) -> None:
    seen = [(one.arn, one.events, one.prefix, one.suffix) for one in wanted]
    if len(set(seen)) < len(seen):
        raise S3Error(
            "InvalidArgument",
            "Configurations overlap. Configurations on the same bucket cannot share a common event type.",
        )


def _element(one: Notification) -> str:
    rules = [
        element("FilterRule", tag("Name", name), tag("Value", value))
        for name, value in (("prefix", one.prefix), ("suffix", one.suffix))
        if value
    ]
    return element(
        "QueueConfiguration",
        tag("Id", one.id),
        tag("Queue", one.arn),
        *(tag("Event", event) for event in one.events),
        element("Filter", element("S3Key", *rules)) if rules else "",
    )
