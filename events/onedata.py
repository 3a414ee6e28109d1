"""Onedata's event, as OneTrigger posts it.

Shape (OneTrigger, https://github.com/grycap/onetrigger): `{"Key": "/space/folder/file", "Records": [{"objectKey":
"file", "objectId": "...", "eventTime": "2019-02-07T09:51:04.347823", "eventSource": "OneTrigger"}]}`.
"""

from collections.abc import Mapping
from typing import Any

from events.notifications import Notification, NotificationError, moment, source_of, text

PROVIDER = "onedata"
"""Which one it is, the space tells."""


def is_event(document: Mapping[str, Any]) -> bool:
    """Whether `document` claims to be OneTrigger's."""
    return source_of(document) == "OneTrigger"


def parse(document: Mapping[str, Any]) -> Notification:
    """The file that the event tells of; its bucket is the space.

    Raises NotificationError, naming the field that is missing or of the wrong type.
    """
    path = text(document, "Key", "Onedata event")
    space, _, key = path.strip("/").partition("/")
    if not key or path.endswith("/"):
        raise NotificationError(f'Onedata event.Key: "{path}" is no file of a space; it reads /SPACE/FOLDER/FILE')
    time = moment(str(document["Records"][0].get("eventTime", "")), "Records[0]")
    return Notification(space, key, event_name="", time=time, provider=PROVIDER)
