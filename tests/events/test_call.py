"""A schedule's call from another cluster: made at its time, and again while nobody answers."""

import json
import socket
import time
from pathlib import Path

import pytest

from events.call import LATE_S, CallFailed, call, main, wait_for
from events.schedules import read_one
from tests.cluster import Cluster

NIGHTLY = {"service": "call-copy", "cron": "0 2 * * *", "payload": {"seed": 1}}


@pytest.fixture(scope="module")
def token(cluster: Cluster) -> str:
    cluster.deploy("call-copy", script='cat "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/said"')
    return cluster.token("call-copy")


def jobs(cluster: Cluster) -> int:
    return len(cluster.jobs(service="call-copy"))


@pytest.fixture
def run(cluster: Cluster, token: str, tmp_path: Path, capsys):
    """The module as a CronJob runs it."""

    def start(fields: dict, *, bearer: str = token, endpoint: str = ""):
        (tmp_path / "schedule.json").write_text(json.dumps({"name": "a", **fields}))
        (tmp_path / "token").write_text(f"{bearer}\n")
        endpoint = endpoint or cluster.facts["api"]
        environ = {"OSCAR_ENDPOINT": endpoint, "OSCAR_TOKEN_FILE": str(tmp_path / "token")}
        status = main([str(tmp_path / "schedule.json")], environ)
        return status, capsys.readouterr().err

    return start


def test_the_service_gets_the_payload(cluster: Cluster, run):
    before = jobs(cluster)
    assert run(NIGHTLY) == (0, "")
    cluster.ended("call-copy", before + 1)
    assert cluster.read("call-copy", "out/said") == b'{"seed": 1}'


def test_a_wrong_token_is_said_at_once(cluster: Cluster, run):
    status, said = run(NIGHTLY, bearer="0" * 64)
    assert status == 1
    assert "answers 401" in said
    assert "check the token in the Secret" in said


def test_what_is_missing_is_named(run):
    assert run({"service": 5})[0] == 65
    status, said = run(NIGHTLY, endpoint="oscar:8080")
    assert (status, said) == (
        1,
        'dioscar: a: OSCAR_ENDPOINT: "oscar:8080" is no URL; write e.g. http://oscar.oscar:8080\n',
    )


def test_a_call_is_made_again_while_nobody_answers(cluster: Cluster, token: str):
    before = jobs(cluster)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    pauses: list[float] = []
    with pytest.raises(CallFailed, match="no answer"):
        call(f"http://127.0.0.1:{port}", token, read_one("a", NIGHTLY), pause=pauses.append)
    assert pauses == [1.0, 5.0, 15.0, 30.0, 60.0]
    assert jobs(cluster) == before


def test_a_time_is_waited_for_also_where_the_clock_is_set():
    now, naps = [0.0], []

    def pause(seconds: float) -> None:
        naps.append(seconds)
        now[0] += seconds if len(naps) != 2 else -20  # set back while it waits

    assert wait_for(75.0, clock=lambda: now[0], pause=pause) == 0.0
    assert naps == [30.0, 30.0, 30.0, 30.0, 5.0]


def test_what_was_missed_is_made_up_for_or_passed_over(cluster: Cluster, run):
    late = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - LATE_S - 60))
    before = jobs(cluster)
    once = {"service": "call-copy", "at": late}
    status, said = run({**once, "missed": "skip"})
    assert (status, jobs(cluster)) == (0, before)
    assert "skipped, as it says" in said
    assert run(once) == (0, "")
    assert jobs(cluster) == before + 1
