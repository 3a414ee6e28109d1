"""What happened to an object, as everybody is told it: the services, webhooks, and those who listen."""

from datetime import UTC, datetime

from events.notifications import Notification
from infra.local.stored import Origin, StoredObject


def notification_of(stored: StoredObject, event_name: str, origin: Origin, region: str) -> Notification:
    """The event, with metadata under the names that MinIO gives it (`X-Amz-Meta-Dioscar-Hops`)."""
    return Notification(
        bucket=stored.bucket,
        key=stored.key,
        event_name=event_name,
        size=stored.size,
        etag=stored.etag,
        content_type=stored.content_type,
        metadata={
            "content-type": stored.content_type,
            **{f"X-Amz-Meta-{name.title()}": value for name, value in stored.metadata.items()},
        },
        sequencer=f"{stored.id:016X}",
        time=datetime.fromtimestamp(stored.modified, UTC),
        principal=origin.principal,
        source_ip=origin.source_ip,
        user_agent=origin.user_agent,
        region=region,
    )
