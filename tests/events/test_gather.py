"""What is gathered, when, and once; also by a checker that dies at any step, on a real store."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.gather import Arrived, check, client_of, enough, main, promotions, request, serving
from events.schedules import Gather, ModelAge, Schedule, ScheduleError, read_one
from layers.objects.client import S3Client
from layers.objects.errors import ObjectError
from layers.runtime import models
from tests.cluster import Cluster

HOUR = 3600.0


def arrived(*keys: str, size: int = 10, since: float = 0.0) -> list[Arrived]:
    return [Arrived(key, size, since + index, mark=key) for index, key in enumerate(keys)]


def names(gather: Gather, there: list[Arrived], now: float = 0.0, **how: Any) -> list[str] | None:
    batch = enough(gather, there, now, **how)
    return None if batch is None else [one.key for one in batch.objects]


def test_enough_is_a_number_of_objects():
    gather = Gather("b", objects=2)
    assert names(gather, arrived("a")) is None
    assert names(gather, arrived("b", "a", "c")) == ["b", "a", "c"]  # all there is, in the order of arrival


def test_enough_is_a_number_of_bytes():
    assert names(Gather("b", bytes=20), arrived("a", size=19)) is None
    assert names(Gather("b", bytes=20), arrived("a", "b", size=10)) == ["a", "b"]


def test_enough_is_an_age_of_the_oldest():
    gather = Gather("b", age_s=60)
    assert names(gather, [], 1e9) is None
    assert names(gather, arrived("a", "b", since=100), 159) is None
    assert names(gather, arrived("a", "b", since=100), 160) == ["a", "b"]


def test_a_word_gathers_its_folder_and_is_done_with():
    gather = Gather("b", "runs/", word="_DONE")
    there = arrived("runs/1/a", "runs/2/a", "runs/1/_DONE", "runs/1/b/c", "elsewhere/_DONE")
    assert names(gather, there[:2]) is None
    batch = enough(gather, there, 0.0)
    assert batch is not None
    assert [one.key for one in batch.objects] == ["runs/1/a", "runs/1/b/c"]
    assert [one.key for one in batch.done] == ["runs/1/a", "runs/1/b/c", "runs/1/_DONE"]


def test_a_word_alone_gathers_nothing_and_is_done_with():
    batch = enough(Gather("b", word="_DONE"), arrived("_DONE"), 0.0)
    assert batch is not None
    assert (batch.objects, [one.key for one in batch.done]) == ((), ["_DONE"])


def test_what_is_more_than_a_request_takes_stays_for_the_next_and_so_does_its_word():
    there = arrived("a", "b", "c", "_DONE")
    batch = enough(Gather("b", word="_DONE", most=2), there, 0.0)
    assert batch is not None
    assert [one.key for one in batch.done] == ["a", "b"]
    assert names(Gather("b", objects=1, most=2), there) == ["a", "b"]


def test_everything_is_enough_on_request_but_nothing_is_not():
    gather = Gather("b", "in/", ".h5", objects=100)
    assert names(gather, arrived("in/a.h5", "in/a.txt", "in/", "out/b.h5"), everything=True) == ["in/a.h5"]
    assert names(gather, arrived("in/a.txt"), everything=True) is None


def test_a_checkers_own_state_is_never_gathered():
    assert names(Gather("b", objects=1), arrived("_schedules/a.json")) is None


keys = st.lists(st.sampled_from([f"{f}/{n}" for f in "abc" for n in ("1", "2", "3", "_DONE")]), unique=True)


@given(keys, st.integers(1, 4), st.integers(1, 4))
def test_whatever_arrives_is_gathered_once_and_in_order(there, objects, most):
    gather = Gather("b", objects=min(objects, most), most=most, word="_DONE")
    left, seen = arrived(*there), []
    while (batch := enough(gather, left, 0.0)) is not None:
        assert batch.done
        assert set(batch.objects) <= set(batch.done)
        assert list(batch.objects) == [one for one in left if one in batch.objects]
        assert len(batch.objects) <= most
        seen += [one.key for one in batch.objects]
        left = [one for one in left if one not in batch.done]
    assert len(seen) == len(set(seen))
    assert set(seen) | {one.key for one in left} | {key for key in there if key.endswith("_DONE")} == set(there)


def test_a_request_is_named_by_what_it_says():
    schedule = Schedule("new", "train", {"seed": 1}, gather=Gather("frames", objects=1))
    one = request(schedule, 7, [Arrived("a", 1, 0.0, "ab"), Arrived("b", 1, 0.0)])
    assert json.loads(one.body) == {
        "seed": 1,
        "inputs": [{"bucket": "frames", "key": "a", "sha256": "ab"}, {"bucket": "frames", "key": "b"}],
    }
    assert one.bucket == "train"
    assert one.key.startswith("in/new-000007-")
    assert one == request(schedule, 7, [Arrived("a", 9, 9.0, "ab"), Arrived("b", 1, 0.0)])
    assert one.key != request(schedule, 7, [Arrived("b", 1, 0.0), Arrived("a", 1, 0.0, "ab")]).key


@pytest.mark.parametrize("alias", ["serving", "candidate"])
def test_which_version_serves_is_what_the_registry_says(alias):
    model = ModelAge("pulsar", 1, alias)
    keys = [
        models.Place("pulsar", other, number, f"{number:016x}").key
        for other in ("serving", "candidate")
        for number in (1, 12, 3)
    ]
    keys += ["pulsar/promotions/note.txt", "pulsar/promotions/00000099-x.json", "pulsars/promotions/"]
    found = models.latest(keys, alias)
    assert found is not None
    assert promotions(model) == models.promotions("pulsar", alias)
    assert serving(model, keys) == (found.key, models.model_key("pulsar", found.version))
    assert serving(model, []) is None


# On a real store: the embedded cluster's, as one S3 among others


@pytest.fixture
def store(cluster: Cluster, request: pytest.FixtureRequest) -> tuple[S3Client, str]:
    """A client, and a bucket of the test's own."""
    name = "gather-" + "".join(c if c.isalnum() else "-" for c in request.node.name.lower())[-50:].strip("-")
    body = json.dumps({"bucket_name": name})
    assert cluster.http.post(cluster.url("/system/buckets"), data=body).status_code == 201
    return cluster.s3, name


def schedule_of(bucket: str, **fields: Any) -> Schedule:
    gather = {"bucket": bucket, "prefix": "data/", "objects": 2, **fields}
    return read_one("new", {"service": "s", "mailbox": f"{bucket}/inbox", "payload": {"seed": 1}, "gather": gather})


def inputs(store: tuple[S3Client, str]) -> list[list[str]]:
    """The keys that each request names, in the order of the requests."""
    client, bucket = store
    found = [json.loads(client.read(bucket, one.key)) for one in client.list(bucket, "inbox/")]
    return [[entry["key"] for entry in document["inputs"]] for document in found]


def every(store: tuple[S3Client, str]) -> list[str]:
    return [key for keys in inputs(store) for key in keys]


def put(store: tuple[S3Client, str], *keys: str, body: bytes = b"x") -> None:
    for key in keys:
        store[0].put(store[1], key, body)


def test_a_checker_gathers_what_is_new_and_each_version_once(store):
    client, bucket = store
    schedule = schedule_of(bucket)
    put(store, "data/b")
    assert check(client, schedule, 0.0) == []
    put(store, "data/a", "other/c")
    (made,) = check(client, schedule, 0.0)
    assert client.read(bucket, made.key) == made.body
    assert check(client, schedule, 0.0) == []
    put(store, "data/b", body=b"another")
    put(store, "data/d")
    check(client, schedule, 0.0)
    assert sorted(map(sorted, inputs(store))) == [["data/a", "data/b"], ["data/b", "data/d"]]
    client.delete(bucket, "data/b")
    put(store, "data/e")
    assert check(client, schedule, 0.0) == []


def test_a_checker_may_pass_over_what_was_there_before_it(store):
    client, bucket = store
    put(store, "data/a", "data/b")
    schedule = schedule_of(bucket, existing="skip")
    assert check(client, schedule, 0.0) == []
    put(store, "data/c", "data/d")
    check(client, schedule, 0.0)
    assert [sorted(one) for one in inputs(store)] == [["data/c", "data/d"]]


def test_many_go_into_several_requests(store):
    put(store, *(f"data/{index}" for index in range(5)))
    client, bucket = store
    assert len(check(client, schedule_of(bucket, objects=1, most=2), 0.0)) == 3
    assert sorted(every(store)) == [f"data/{index}" for index in range(5)]


class Killed(Exception):  # noqa: N818
    """The end of a checker, as by a power cut."""


class Dying(S3Client):
    """A client whose owner dies before or after the n-th request that changes something."""

    def __init__(self, like: S3Client, step: int, *, after: bool) -> None:
        vars(self).update(vars(like))
        self._idle = []
        self._left, self._after = step, after

    def put(self, *arguments: Any, **named: Any) -> Any:
        if not self._left and not self._after:
            raise Killed
        result = super().put(*arguments, **named)
        if not self._left:
            raise Killed
        self._left -= 1
        return result


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(3))
def test_a_checker_that_dies_at_any_step_neither_loses_nor_doubles(store, step, after):
    client, bucket = store
    schedule = schedule_of(bucket)
    put(store, "data/a", "data/b")
    with Dying(client, step, after=after) as dying, pytest.raises(Killed):
        check(dying, schedule, 0.0)
    put(store, "data/c")  # what comes in between must not change the request that was begun
    check(client, schedule, 0.0)
    put(store, "data/d")
    check(client, schedule, 0.0)
    gathered = every(store)
    if step == 0 and not after:
        assert sorted(gathered) == ["data/a", "data/b", "data/c"]  # nothing had been begun
    else:
        assert sorted(gathered) == ["data/a", "data/b", "data/c", "data/d"]


def test_a_request_is_written_once_also_where_the_store_knows_no_condition(store, monkeypatch):
    client, bucket = store
    put(store, "data/a", "data/b")
    real = S3Client.put

    def refuse(self: S3Client, *arguments: Any, if_absent: bool = False, **named: Any) -> Any:
        if if_absent:
            raise ObjectError("not implemented", status=501)
        return real(self, *arguments, **named)

    monkeypatch.setattr(S3Client, "put", refuse)
    check(client, schedule_of(bucket), 0.0)
    assert [sorted(one) for one in inputs(store)] == [["data/a", "data/b"]]


def model_schedule(bucket: str) -> Schedule:
    fields = {"name": "m", "older": "1h", "registry": bucket}
    return read_one("old", {"service": "s", "mailbox": f"{bucket}/inbox", "payload": {"seed": 1}, "model": fields})


def test_a_checker_asks_for_a_new_model_when_the_one_that_serves_is_old_and_then_waits_as_long(store):
    client, bucket = store
    schedule = model_schedule(bucket)
    put(store, "m/versions/00000000000000aa/model.onnx", "m/promotions/00000001-00000000000000aa.json")
    born = client.head(bucket, "m/versions/00000000000000aa/model.onnx").modified.timestamp()
    assert check(client, schedule, born + HOUR - 1) == []
    (made,) = check(client, schedule, born + HOUR)
    assert made.body == b'{"seed": 1}'
    assert check(client, schedule, born + 2 * HOUR - 1) == []
    assert len(check(client, schedule, born + 2 * HOUR)) == 1


def test_where_nothing_was_promoted_the_age_counts_from_the_first_look(store):
    client, bucket = store
    schedule = model_schedule(bucket)
    assert check(client, schedule, 1e9) == []
    assert check(client, schedule, 1e9 + HOUR - 1) == []
    assert len(check(client, schedule, 1e9 + HOUR)) == 1


def test_a_damaged_state_is_an_error_and_not_a_new_beginning(store):
    client, bucket = store
    put(store, "data/a", "data/b")
    put(store, "_schedules/new.json", body=b"{}")
    with pytest.raises(ObjectError, match=r"_schedules/new.json: is not what a checker wrote"):
        check(client, schedule_of(bucket), 0.0)
    assert inputs(store) == []


def test_only_what_arrives_is_looked_for(store):
    with pytest.raises(ScheduleError, match="by the clock"):
        check(store[0], read_one("a", {"service": "s", "cron": "* * * * *"}), 0.0)


@pytest.fixture
def checker(cluster: Cluster, tmp_path, capsys) -> Callable[..., tuple[int, str, str]]:
    """The module as a CronJob runs it."""
    environ = {
        "MINIO_ENDPOINT": cluster.facts["s3"],
        "MINIO_ACCESS_KEY": cluster.facts["minio_access_key"],
        "MINIO_SECRET_KEY": cluster.facts["minio_secret_key"],
    }

    def run(document: Any, **changed: str) -> tuple[int, str, str]:
        path = tmp_path / "schedule.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        status = main([str(path)], {**environ, **changed})
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_the_module_says_what_it_has_written(store, checker):
    _, bucket = store
    put(store, "data/a", "data/b")
    gather = {"bucket": bucket, "prefix": "data/", "objects": 2}
    document = {"name": "new", "service": "s", "mailbox": f"{bucket}/inbox", "gather": gather}
    status, out, err = checker(document)
    assert (status, err) == (0, "")
    assert out.startswith(f"{bucket}/inbox/new-000001-")
    assert checker(document) == (0, "", "")


FINE = {"name": "a", "service": "s", "gather": {"bucket": "frames", "objects": 1}}


@pytest.mark.parametrize(
    "document, changed, status, sentence",
    [
        ("[]", {}, 65, "schedule.json: is no schedule"),
        ("{", {}, 65, "schedule.json: is no JSON"),
        ({**FINE, "gather": {"bucket": "frames", "objects": -1}}, {}, 65, "gather.objects: -1"),
        ({**FINE, "gather": {"bucket": "no-such-bucket", "objects": 1}}, {}, 1, "no-such-bucket"),
        (FINE, {"MINIO_SECRET_KEY": ""}, 65, "MINIO_SECRET_KEY: is not set"),
        (FINE, {"MINIO_SECRET_KEY": "x"}, 1, "403"),
        (FINE, {"MINIO_ENDPOINT": "nonsense"}, 1, "is no S3 endpoint"),
    ],
)
def test_the_module_says_what_is_wrong(checker, document, changed, status, sentence):
    ended, out, err = checker(document, **changed)
    assert (ended, out) == (status, "")
    assert sentence in err
    assert err.count("\n") == 1


def test_the_module_needs_no_more_than_the_runtimes_image_has():
    look = "import sys, events.gather, events.call; print({'yaml', 'pydantic', 'cronsim', 'boto3'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-P", "-c", look], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_the_store_of_the_environment():
    with pytest.raises(ValueError, match="MINIO_ENDPOINT: is not set"):
        client_of({})
    client = client_of({"MINIO_ENDPOINT": "http://x:1", "MINIO_ACCESS_KEY": "a", "MINIO_SECRET_KEY": "b"})
    assert client.endpoint == "http://x:1"
