"""What stands on a supervisor's standard input."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.notifications import Notification, build
from layers.runtime import InputError
from layers.runtime.incoming import Payload, StorageEvent, interpret

EVENT = build(Notification("b", "in/a b.txt"))


@given(st.binary(max_size=300))
def test_base64_is_decoded(data: bytes):
    assert interpret(base64.b64encode(data)) == Payload(data, {}) or not data


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_an_empty_body_is_an_empty_payload(body: bytes):
    assert interpret(body) == Payload(b"", {})


def test_lines_of_base64_are_joined():
    assert interpret(base64.encodebytes(b"x" * 100)) == Payload(b"x" * 100, {})


@pytest.mark.parametrize("body", [b"hello there", b"\x89PNG\r\n", b"abc", '"no base64 é"'.encode()])
def test_what_is_neither_json_nor_base64_is_refused(body: bytes):
    with pytest.raises(InputError, match="neither JSON nor base64"):
        interpret(body)


def test_a_notification_is_a_storage_event():
    event = interpret(json.dumps(EVENT).encode())
    assert isinstance(event, StorageEvent)
    assert (event.notification.bucket, event.notification.key) == ("b", "in/a b.txt")


@pytest.mark.parametrize("inner", [EVENT, json.dumps(EVENT)])
def test_another_clusters_wrapper_is_opened(inner: object):
    assert isinstance(interpret(json.dumps({"storage_provider": "x", "event": inner}).encode()), StorageEvent)


@pytest.mark.parametrize("body", [b'{"a": 1}', b"[1, 2]", '{"é": "ü"}'.encode()])
def test_other_json_is_the_payload_unchanged(body: bytes):
    assert interpret(body) == Payload(body, {})


def test_an_api_gateway_passes_body_and_query():
    call = {"httpMethod": "POST", "body": "aGk=", "isBase64Encoded": True, "queryStringParameters": {"dm": "56"}}
    assert interpret(json.dumps(call).encode()) == Payload(b"hi", {"CONT_VAR_dm": "56"})


def test_json_that_is_nested_too_deeply_is_refused():
    with pytest.raises(InputError, match="nested too deeply"):
        interpret(b"[" * 100_000)


def test_a_broken_notification_names_the_field():
    with pytest.raises(InputError, match=r"Records\[0\]\.s3: is missing"):
        interpret(b'{"Records": [{"eventSource": "minio:s3"}]}')


@given(st.binary(max_size=200))
def test_any_body_is_understood_or_refused(body: bytes):
    try:
        interpret(body)
    except InputError as error:
        assert str(error)  # noqa: PT017 - either is right
