"""MinIO's event, as MinIO sends it and as the FaaS supervisor reads it."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.notifications import Notification, NotificationError, build, is_notification, parse

KEYS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=60)


@given(bucket=st.from_regex(r"[a-z][a-z0-9-]{2,20}", fullmatch=True), key=KEYS, size=st.integers(0, 2**40))
def test_what_is_built_parses_back(bucket: str, key: str, size: int):
    notification = Notification(
        bucket,
        key,
        size=size,
        etag="d41d8",
        metadata={"producer": "x"},
        time=datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=UTC),
        principal="minio",
    )
    assert parse(json.loads(json.dumps(build(notification)))) == [notification]


def test_the_key_is_form_escaped_in_the_record_and_plain_on_top():
    document = build(Notification("b", "in/a b é.txt"))
    assert document["Key"] == "b/in/a b é.txt"
    assert document["Records"][0]["s3"]["object"]["key"] == "in%2Fa+b+%C3%A9.txt"


def test_the_record_has_the_fields_of_minio():
    record = build(Notification("b", "k", time=datetime(2026, 1, 31, 12, tzinfo=UTC)))["Records"][0]
    assert list(record) == [
        "eventVersion",
        "eventSource",
        "awsRegion",
        "eventTime",
        "eventName",
        "userIdentity",
        "requestParameters",
        "responseElements",
        "s3",
        "source",
    ]
    assert record["eventSource"] == "minio:s3"
    assert record["eventTime"] == "2026-01-31T12:00:00.000Z"


@pytest.mark.parametrize("document", [None, 3, [], "x", {}, {"Records": []}, {"Records": [{"eventSource": "dropbox"}]}])
def test_other_documents_are_no_notification(document: object):
    assert not is_notification(document)
    with pytest.raises(NotificationError):
        parse(document)


def test_a_missing_field_is_named():
    document = build(Notification("b", "k"))
    del document["Records"][0]["s3"]["bucket"]["name"]
    with pytest.raises(NotificationError, match=r"Records\[0\]\.s3\.bucket\.name: is missing"):
        parse(document)


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=8)
)
def test_any_record_parses_or_is_refused_in_a_sentence(body: object):
    try:
        parse({"Records": [{"eventSource": "minio:s3", "s3": body}]})
    except NotificationError as error:
        assert "Records[0]" in str(error)  # noqa: PT017 - either is right
