"""The events of dCache, Onedata and Rucio: each is one object, or a sentence that names the field."""

from datetime import UTC, datetime
from typing import Any

import pytest

from events.notifications import Notification, NotificationError, build, is_notification, read

DCACHE: dict[str, Any] = {
    "event": {"name": "image2.jpg", "mask": ["IN_CREATE"]},
    "subscription": "https://prometheus.desy.de:3880/api/v1/events/channels/oyG/subscriptions/inotify/AACvM",
}
ONEDATA: dict[str, Any] = {
    "Key": "/my-onedata-space/files/file.txt",
    "Records": [
        {
            "objectKey": "file.txt",
            "objectId": "0000034500046EE9C6775",
            "eventTime": "2019-02-07T09:51:04.347823",
            "eventSource": "OneTrigger",
        }
    ],
}
RUCIO: dict[str, Any] = {"event_type": "close", "payload": {"scope": "username", "name": "dataset_name"}}
RECORD: dict[str, Any] = ONEDATA["Records"][0]


def test_dcache_names_a_file_of_the_watched_folder() -> None:
    assert read(DCACHE) == [Notification("", "image2.jpg", event_name="IN_CREATE", provider="webdav.dcache")]


def test_onedata_names_a_file_of_a_space() -> None:
    time = datetime(2019, 2, 7, 9, 51, 4, 347823, tzinfo=UTC)
    expected = Notification("my-onedata-space", "files/file.txt", event_name="", time=time, provider="onedata")
    assert read(ONEDATA) == [expected]


def test_rucio_names_a_data_identifier() -> None:
    assert read(RUCIO) == [Notification("username", "dataset_name", event_name="close", provider="rucio.rucio")]


def test_a_bucket_notification_is_read_by_the_same_door() -> None:
    assert [found.key for found in read(build(Notification("b", "in/a b.txt")))] == ["in/a b.txt"]


@pytest.mark.parametrize("source, provider", [("minio:s3", "minio.default"), ("aws:s3", "s3.default")])
def test_the_source_tells_the_store(source: str, provider: str) -> None:
    document = build(Notification("b", "k"))
    document["Records"][0]["eventSource"] = source
    assert [found.provider for found in read(document)] == [provider]


@pytest.mark.parametrize("document", [DCACHE, ONEDATA, RUCIO])
def test_none_of_them_is_a_bucket_notification(document: dict[str, Any]) -> None:
    assert not is_notification(document)


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"event_type": "click"},
        {"event_type": "click", "payload": "x"},
        {"event_type": "click", "payload": {"user": 3}},
        {"event": "GW150914"},
        {"Records": [1]},
        {"Records": [{"eventSource": ["OneTrigger"]}]},
    ],
)
def test_other_json_is_no_event(document: object) -> None:
    assert read(document) == []


@pytest.mark.parametrize(
    "document, sentence",
    [
        ({**DCACHE, "event": "x"}, r"dCache event\.event: is missing"),
        ({**DCACHE, "event": {"mask": []}}, r"dCache event\.event\.name: is missing"),
        ({**DCACHE, "event": {"name": "\ud800"}}, r"dCache event\.event\.name: has half a character"),
        ({**DCACHE, "event": {"name": "a", "mask": 3}}, r"dCache event\.event\.mask: is no list of names"),
        ({"Records": [RECORD]}, r"Onedata event\.Key: is missing"),
        ({**ONEDATA, "Key": "/space"}, r'Onedata event\.Key: "/space" is no file of a space'),
        ({**ONEDATA, "Key": "/space/folder/"}, "is no file of a space; it reads /SPACE/FOLDER/FILE"),
        ({**ONEDATA, "Records": [{**RECORD, "eventTime": "noon"}]}, r'Records\[0\]\.eventTime: "noon" is no time'),
        ({**RUCIO, "payload": {"scope": "x"}}, r"Rucio event\.payload\.name: is missing"),
        ({**RUCIO, "payload": {"scope": 3, "name": "x"}}, r"Rucio event\.payload\.scope: is missing"),
        ({**RUCIO, "event_type": None}, r"Rucio event\.event_type: is missing"),
    ],
)
def test_a_wrong_field_is_named(document: dict[str, Any], sentence: str) -> None:
    with pytest.raises(NotificationError, match=sentence):
        read(document)
