"""Rucio's event: a message of its daemon Hermes, as faas-supervisor 2 takes it.

Shape (Rucio, "Message types", https://rucio.github.io/documentation/): `{"event_type": "close", "payload": {"scope":
"user", "name": "dataset"}}`.
"""

from collections.abc import Mapping
from typing import Any

from events.notifications import Notification, mapping, text

PROVIDER = "rucio.rucio"


def is_event(document: Mapping[str, Any]) -> bool:
    """Whether `document` claims to be Rucio's: other JSON with an `event_type` is its sender's own."""
    payload = document.get("payload")
    return "event_type" in document and isinstance(payload, dict) and "scope" in payload


def parse(document: Mapping[str, Any]) -> Notification:
    """The data identifier that the event tells of; its bucket is the scope.

    Raises NotificationError, naming the field that is missing or of the wrong type.
    """
    payload = mapping(document, "payload", "Rucio event")
    return Notification(
        text(payload, "scope", "Rucio event.payload"),
        text(payload, "name", "Rucio event.payload"),
        event_name=text(document, "event_type", "Rucio event"),
        provider=PROVIDER,
    )
