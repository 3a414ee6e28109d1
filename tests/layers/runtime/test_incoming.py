"""What stands on a supervisor's standard input."""

import base64
import json
import tracemalloc
from collections.abc import Callable

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


@pytest.mark.parametrize("body", [b"[" * (10 << 20), b'{"a":' * (2 << 20), b"[" + b"[]," * (3 << 20) + b"[]]"])
def test_large_json_is_not_looked_into(body: bytes):
    tracemalloc.start()
    assert interpret(body) == Payload(body, {})
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: b'"' + text.replace(b"/", b"\\/") + b'"\n'])
def test_a_large_file_takes_little_more_than_itself(wrap: Callable[[bytes], bytes]):
    data = bytes(range(256)) * (1 << 15)
    body = wrap(base64.b64encode(data))
    tracemalloc.start()
    assert interpret(body) == Payload(data, {})
    assert tracemalloc.get_traced_memory()[1] < 4 * len(body)
    tracemalloc.stop()


@pytest.mark.parametrize("inner", [b'{"a": 1}', b'{"a": "' + b"x" * (1 << 20) + b'"}'])
def test_an_event_within_an_event_without_end_is_refused(inner: bytes):
    tracemalloc.start()
    with pytest.raises(InputError, match="an event within an event, more than 8 times; send the inner one"):
        interpret(b'{"event":' * 900 + inner + b"}" * 900)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert interpret(b'{"event":' * 8 + b'{"a":1}' + b"}" * 8) == Payload(b'{"a": 1}', {})


@pytest.mark.parametrize("body", [b'"\\ud800"', b'{"httpMethod": "POST", "body": "\\ud800"}', b'{"event": "\\ud800"}'])
def test_half_a_character_is_refused(body: bytes):
    with pytest.raises(InputError, match="half a character"):
        interpret(body)


@pytest.mark.parametrize("query", [{"a=b": "x"}, {"a\0": "x"}, {"a": "\0"}, {"\ud800": "x"}])
def test_a_query_that_is_no_environment_is_refused(query: dict[str, str]):
    with pytest.raises(InputError, match="cannot be an environment variable; leave it out"):
        interpret(json.dumps({"httpMethod": "GET", "queryStringParameters": query}).encode())


def test_a_notification_may_be_in_any_encoding_of_json():
    event = interpret(json.dumps(EVENT).encode("utf-16"))
    assert isinstance(event, StorageEvent) and json.loads(event.text) == EVENT


def test_a_broken_notification_names_the_field():
    with pytest.raises(InputError, match=r"Records\[0\]\.s3: is missing"):
        interpret(b'{"Records": [{"eventSource": "minio:s3"}]}')


@given(st.binary(max_size=200))
def test_any_body_is_understood_or_refused(body: bytes):
    try:
        interpret(body)
    except InputError as error:
        assert str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize(
    "text, body",
    [
        ("aGk=", b"hi"),
        ("hello, world!", b"hello, world!"),
        ('{"dm": 56.7}', b'{"dm": 56.7}'),
        ("", b""),
        ({"dm": 3}, b'{"dm": 3}'),
    ],
)
def test_a_gateways_body_is_told_like_any_other(text: object, body: bytes) -> None:
    call = {"httpMethod": "POST", "body": text, "isBase64Encoded": False}
    assert interpret(json.dumps(call).encode()) == Payload(body, {})


def test_a_gateway_may_pass_a_notification_on() -> None:
    call = {"httpMethod": "POST", "body": json.dumps(EVENT), "queryStringParameters": {"dm": "56"}}
    event = interpret(json.dumps(call).encode())
    assert isinstance(event, StorageEvent)
    assert (event.notification.key, event.query) == ("in/a b.txt", {"CONT_VAR_dm": "56"})


@pytest.mark.parametrize("document", [{"event": "GW150914", "snr": 24}, {"event": {"gps": 1126259462}, "snr": 24}])
def test_json_with_an_event_of_its_own_is_the_payload(document: object) -> None:
    body = json.dumps(document).encode()
    assert interpret(body) == Payload(body, {})


def test_a_wrapped_file_is_decoded() -> None:
    assert interpret(b'{"storage_provider": "cluster-a", "event": "aGk="}') == Payload(b"hi", {})


@pytest.mark.parametrize("name", ["cluster-a", "minio.cluster-a"])
def test_a_wrapper_names_the_store(name: str) -> None:
    event = interpret(json.dumps({"storage_provider": name, "event": json.dumps(EVENT)}).encode())
    assert isinstance(event, StorageEvent) and event.notification.provider == "minio.cluster-a"


@pytest.mark.parametrize("text, body", [('{"a": 1}', b'{"a": 1}'), ("aGk=", b"hi"), ("MTIz", b"123")])
def test_a_json_string_is_the_json_in_it_or_base64(text: str, body: bytes) -> None:
    assert interpret(json.dumps(text).encode()) == Payload(body, {})


@pytest.mark.parametrize("provider", ["", "cluster-a"])
def test_every_record_of_a_notification_has_an_event_of_its_own(provider: str) -> None:
    document: dict[str, object] = {"Records": [*EVENT["Records"], *build(Notification("c", "in/2.txt"))["Records"]]}
    if provider:
        document = {"storage_provider": provider, "event": document}
    event = interpret(json.dumps(document).encode())
    assert isinstance(event, StorageEvent)
    each = [interpret(body) for body in event.bodies]
    found = [one.notification for one in each if isinstance(one, StorageEvent)]
    assert [(one.bucket, one.key) for one in found] == [("b", "in/a b.txt"), ("c", "in/2.txt")]
    assert {one.provider for one in found} == {f"minio.{provider or 'default'}"}


def test_an_event_of_another_store_has_its_own_key() -> None:
    document = {"Key": "/space/in/a.txt", "Records": [{"eventSource": "OneTrigger", "objectKey": "a.txt"}]}
    event = interpret(json.dumps(document).encode())
    assert isinstance(event, StorageEvent)
    assert (event.object_key, event.bodies) == ("/space/in/a.txt", [])


KEYS = ["event", "storage_provider", "subscription", "httpMethod", "body", "isBase64Encoded", "queryStringParameters"]
KEYS += ["Records", "Key", "eventSource", "event_type", "payload", "scope", "name", "s3", "bucket", "object", "key"]
WORDS = ["minio:s3", "aws:s3", "OneTrigger", "rucio", "/space/a", "aGk=", "default", '{"Records": []}', "\ud800", ""]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(WORDS)


@given(
    st.recursive(
        LEAVES,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=6)
        ),
        max_leaves=20,
    )
)
def test_whatever_stands_in_the_fields_of_events_is_understood_or_refused(document: object) -> None:
    try:
        found = interpret(json.dumps(document).encode())
    except InputError as error:
        assert str(error)  # noqa: PT017 - either is right
        return
    if isinstance(found, StorageEvent):
        assert found.notification.key and isinstance(found.object_key, str)
        assert all(isinstance(interpret(body), StorageEvent) for body in found.bodies)
