"""Bucket notifications, those who listen, and what a webhook is sent, field by field."""

import io
import threading

import pytest
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from minio.notificationconfig import NotificationConfig, PrefixFilterRule, SuffixFilterRule

from tests.cluster import eventually
from tests.infra.local.s3.conformance.differences import BUILT_IN, EVENT_DIFFERENCES, MINIO, OF_THE_MOMENT
from tests.infra.local.s3.conformance.stores import ARN, complete, fill, part, rule, upload


def test_notifications_are_set_and_told(store, bucket):
    wanted = rule(
        "s3:ObjectCreated:*",
        "s3:ObjectRemoved:Delete",
        config_id="one",
        prefix_filter_rule=PrefixFilterRule("in/"),
        suffix_filter_rule=SuffixFilterRule(".fil"),
    )
    assert store.minio.get_bucket_notification(bucket).queue_config_list in ([], None)
    store.minio.set_bucket_notification(bucket, wanted)
    (found,) = store.minio.get_bucket_notification(bucket).queue_config_list
    assert (found.config_id, found.events) == ("one", ["s3:ObjectCreated:*", "s3:ObjectRemoved:Delete"])
    assert (found.prefix_filter_rule.value, found.suffix_filter_rule.value) == ("in/", ".fil")
    assert found.queue == ARN
    store.minio.delete_bucket_notification(bucket)
    assert store.minio.get_bucket_notification(bucket).queue_config_list in ([], None)


@pytest.mark.parametrize(
    "arn", [ARN.replace("PRIMARY", "nobody"), ARN.replace("webhook", "kafka"), ARN.replace("minio", "aws"), "nonsense"]
)
def test_a_target_that_is_not_there(store, bucket, arn):
    with pytest.raises(S3Error) as caught:
        store.minio.set_bucket_notification(bucket, rule("s3:ObjectCreated:*", arn=arn))
    assert caught.value.code == "InvalidArgument"
    assert caught.value.message == (
        "A specified destination ARN does not exist or is not well-formed. Verify the destination ARN."
    )


def test_an_event_that_is_none(store, bucket):
    with pytest.raises(S3Error) as caught:
        store.minio.set_bucket_notification(bucket, rule("s3:Nothing"))
    assert (caught.value.code, caught.value.message) == (
        "InvalidArgument",
        "A specified event is not supported for notifications.",
    )


def test_the_same_rule_twice(store, bucket):
    twice = NotificationConfig(queue_config_list=[*rule("s3:ObjectCreated:*").queue_config_list * 2])
    with pytest.raises(S3Error) as caught:
        store.minio.set_bucket_notification(bucket, twice)
    assert caught.value.code == "InvalidArgument"


def listen(store, bucket, count, ready, **wanted):
    events = []
    stream = store.minio.listen_bucket_notification(bucket, **wanted)
    stream._response = stream._func()  # the client itself connects at the first event it waits for
    ready.set()
    for event in stream:
        events += event["Records"]
        if len(events) >= count:
            break
    stream._response.close()
    stream._response.release_conn()
    return events


def test_who_listens_hears(store, s3, bucket):
    ready, heard = threading.Event(), []
    arguments = {"prefix": "in/", "suffix": ".txt", "events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    thread = threading.Thread(target=lambda: heard.extend(listen(store, bucket, 2, ready, **arguments)))
    thread.start()
    assert ready.wait(10)
    fill(s3, bucket, "out/a.txt", "in/a b.txt")
    s3.delete_object(Bucket=bucket, Key="in/a b.txt")
    thread.join(20)
    assert [(one["eventName"], one["s3"]["object"]["key"]) for one in heard] == [
        ("s3:ObjectCreated:Put", "in/a b.txt"),
        ("s3:ObjectRemoved:Delete", "in/a b.txt"),
    ]


def happen(store, bucket):
    """Something of everything; what the webhook is told of it, in order."""
    s3, minio = store.s3, store.minio
    s3.create_bucket(Bucket=bucket)
    minio.set_bucket_notification(bucket, rule("s3:ObjectCreated:*", "s3:ObjectRemoved:*"))
    steps = [
        lambda: minio.put_object(
            bucket, "in/a b+ü.txt", io.BytesIO(b"hello"), 5, content_type="text/plain", metadata={"dioscar-hops": "1"}
        ),
        lambda: s3.put_object(Bucket=bucket, Key="empty", Body=b""),
        lambda: s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "in/a b+ü.txt"}),
        lambda: _multipart(s3, bucket),
        lambda: s3.delete_object(Bucket=bucket, Key="copy"),
    ]
    for count, step in enumerate(steps, 1):
        step()
        eventually(lambda count=count: len(_told(store, bucket)) >= count, 10)
    return _told(store, bucket)


def _multipart(s3, bucket):
    identity = upload(s3, bucket, "parts")
    complete(s3, bucket, identity, [part(s3, bucket, 1, b"x", identity, "parts")], "parts")


def _told(store, bucket):
    return [event for event in store.receiver.events if event["Key"].startswith(f"{bucket}/")]


def fields(value, path=""):
    """The leaves of a JSON document, by path."""
    if isinstance(value, dict):
        return {name: leaf for key, inner in value.items() for name, leaf in fields(inner, f"{path}.{key}").items()}
    if isinstance(value, list):
        return {name: leaf for inner in value for name, leaf in fields(inner, f"{path}[]").items()}
    return {path.removeprefix("."): value}


@pytest.fixture(scope="module")
def events(stores):
    return {name: happen(stores(name), "events") for name in (BUILT_IN, MINIO)}


def test_the_same_events_in_the_same_order(events):
    names = {name: [(one["EventName"], one["Key"]) for one in told] for name, told in events.items()}
    assert names[BUILT_IN] == names[MINIO]
    assert len(names[MINIO]) == 5


def differing(ours, theirs):
    """The fields that are in one of two events only, or not the same; some need only be there."""
    left, right = fields(ours), fields(theirs)
    equal = {path for path in {*left} & {*right} if path in OF_THE_MOMENT or left[path] == right[path]}
    return ({*left} | {*right}) - equal


def test_events_are_equal_field_by_field(events):
    kinds = ["put", "empty", "copied", "in parts", "removed"]
    pairs = zip(kinds, events[BUILT_IN], events[MINIO], strict=True)
    differ = {kind: differing(ours, theirs) for kind, ours, theirs in pairs}
    always = set.intersection(*differ.values())
    sometimes = {f"{kind}: {path}" for kind, paths in differ.items() for path in paths - always}
    assert always | sometimes == set(EVENT_DIFFERENCES)


def test_who_listens_is_told_what_a_webhook_is_told(stores):
    def told(name):
        store, heard, ready = stores(name), [], threading.Event()
        store.s3.create_bucket(Bucket="listened")
        thread = threading.Thread(target=lambda: heard.extend(listen(store, "listened", 1, ready)))
        thread.start()
        assert ready.wait(10)
        fill(store.s3, "listened", "a b+ü")
        thread.join(20)
        return {"Records": heard}

    known = {path.removeprefix("put: ") for path in EVENT_DIFFERENCES}
    assert differing(told(BUILT_IN), told(MINIO)) <= known


def test_an_event_is_of_its_own_moment(store):
    """A removal is later than what it removes, by its time and by its sequencer."""
    told = happen(store, "moments")
    records = [event["Records"][0] for event in told]
    sequencers = [record["s3"]["object"]["sequencer"] for record in records]
    assert len(set(sequencers)) == len(sequencers) and sequencers == sorted(sequencers)
    times = [record["eventTime"] for record in records]
    assert len(set(times)) == len(times) and times == sorted(times)


def test_each_of_many_deletions_is_told(store, s3, bucket):
    store.minio.set_bucket_notification(bucket, rule("s3:ObjectRemoved:*"))
    fill(s3, bucket, "a", "b")
    assert list(store.minio.remove_objects(bucket, [DeleteObject("a"), DeleteObject("b")])) == []
    eventually(lambda: len(_told(store, bucket)) == 2, 2)


def test_a_webhook_is_called_in_the_same_way(stores, events):
    def sent(name):
        headers = stores(name).receiver.headers[0]
        return {name: headers.get(name) for name in ("Authorization", "Content-Type")}, stores(name).receiver.paths[0]

    assert sent(BUILT_IN) == sent(MINIO)
