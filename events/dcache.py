"""dCache's event: its inotify channel tells of a file in a watched folder, whose name stands in the subscription.

Shape (dCache, "Storage Events", https://www.dcache.org/manuals/): `{"event": {"name": "a.fil", "mask": ["IN_CREATE"]},
"subscription": "https://..."}`. The folder is not in it: OSCAR takes the `path` of the service's input `webdav.dcache`.
"""

from collections.abc import Mapping
from typing import Any

from events.notifications import Notification, NotificationError, mapping, text

PROVIDER = "webdav.dcache"


def parse(document: Mapping[str, Any]) -> Notification:
    """The file that the event tells of; its key is below the watched folder.

    Raises NotificationError, naming the field that is missing or of the wrong type.
    """
    event = mapping(document, "event", "dCache event")
    mask = event.get("mask") or []
    if not isinstance(mask, list) or not all(isinstance(flag, str) for flag in mask):
        raise NotificationError('dCache event.event.mask: is no list of names; write ["IN_CREATE"]')
    return Notification("", text(event, "name", "dCache event.event"), event_name=" ".join(mask), provider=PROVIDER)
