"""`invoke`, `jobs`, `logs`: calls answer, jobs are found, failures say why and set the status."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.cli.jobs import _rows, decode_reply, is_failure, short
from tests.cluster import PATIENCE_S, Cluster, eventually
from tests.infra.cli.conftest import Dioscar

Fdl = Callable[..., Path]


@pytest.fixture
def copier(on: Dioscar, fdl_file: Fdl) -> str:
    assert on("apply", fdl_file("jobs-copy", "copy")).status == 0
    return "jobs-copy"


@pytest.fixture
def failing(on: Dioscar, fdl_file: Fdl) -> str:
    path = fdl_file("jobs-fail", "fail")
    path.write_text(path.read_text() + '        annotations: {dioscar/retries: "0"}\n')
    assert on("apply", path).status == 0
    return "jobs-fail"


def test_a_call_prints_the_reply(on: Dioscar, copier: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Größe")
    said = on("invoke", copier, tmp_path / "a.txt")
    assert (said.status, said.out) == (0, "Größe")


def test_a_reply_may_go_into_a_file(on: Dioscar, copier: str, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    assert on("invoke", copier, tmp_path / "a.bin", "-o", tmp_path / "reply").out == ""
    assert (tmp_path / "reply").read_bytes() == bytes(range(256))


def test_a_refused_input_is_bad_input_with_the_functions_sentence(on: Dioscar, failing: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("bad input")
    said = on("invoke", failing, tmp_path / "a.txt")
    assert said.status == 65
    assert "is no telescope file; write SIGPROC" in said.err


def test_a_defect_of_a_function_is_a_failure(on: Dioscar, failing: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("error")
    said = on("invoke", failing, tmp_path / "a.txt")
    assert said.status == 1
    assert "a defect of the function" in said.err


def test_a_service_that_forwards_is_to_be_called_in_the_background(on: Dioscar, fdl_file: Fdl, tmp_path: Path) -> None:
    path = fdl_file("jobs-chained", "copy")
    path.write_text(path.read_text().replace("contract.copy", "contract.copy, FORWARD: '* -> jobs-chained/next'"))
    assert on("apply", path).status == 0
    (tmp_path / "a.txt").write_text("a")
    said = on("invoke", "jobs-chained", tmp_path / "a.txt")
    assert said.status == 65
    assert said.err.startswith("dioscar: jobs-chained: forwards its outputs")
    assert "or run dioscar invoke jobs-chained FILE --async" in said.err and "POST" not in said.err


def test_a_service_that_is_not_there_is_not_found(on: Dioscar, copier: str) -> None:
    said = on("invoke", "jobs-copi")
    assert (said.status, said.err) == (66, "dioscar: there is no service jobs-copi; there is jobs-copy\n")


def test_a_call_in_the_background_gives_a_job_to_follow(on: Dioscar, copier: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    job = on("invoke", copier, tmp_path / "a.txt", "--async", "--json").json["job"]
    followed = on("logs", "-f", job)
    assert followed.status == 0
    assert "copied" in followed.out
    shown = on("jobs", job, "--json").json
    assert (shown["id"], shown["service"], shown["state"]) == (job, copier, "Succeeded")
    assert f"{job} Succeeded" in on("jobs", job).out
    assert f"Follow it: dioscar logs -f {copier}-" in on("invoke", copier, tmp_path / "a.txt", "--async").err


def test_following_a_job_that_fails_ends_with_its_status(on: Dioscar, failing: str, tmp_path: Path) -> None:
    for text, status in (("bad input", 65), ("error", 1)):
        (tmp_path / "a.txt").write_text(text)
        job = on("invoke", failing, tmp_path / "a.txt", "--async", "--json").json["job"]
        said = on("logs", "-f", job)
        assert said.status == status
        assert f"{job} is Dead: " in said.err


def test_a_part_of_a_jobs_name_is_enough(on: Dioscar, copier: str, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    job = on("invoke", copier, tmp_path / "a.txt", "--async", "--json").json["job"]
    assert on("logs", "-f", short({"id": job})).status == 0
    assert on("jobs", "jobs-copy-nothing").status == 66
    on("invoke", copier, tmp_path / "a.txt", "--async")
    assert "jobs have jobs-copy in their name" in on("logs", copier).err


def test_a_jobs_input_and_outputs_are_shown(on: Dioscar, copier: str, cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "put me.txt").write_text("a")
    on("put", tmp_path / "put me.txt", f"{copier}/in")

    def look() -> dict[str, object] | None:
        (found,) = cluster.jobs(service=copier, key="in/put me.txt")
        return found if found["state"] == "Succeeded" else None

    job = eventually(look)
    shown = on("jobs", job["id"]).out
    assert "input      jobs-copy/in/put me.txt" in shown
    assert "output     jobs-copy/out/put me.txt.copy (1 bytes)" in shown
    listed = on("jobs", "--service", copier).out
    assert listed.splitlines()[0].split() == ["JOB", "STATE", "TRY", "AGE", "TOOK", "INPUT", "NOTE"]
    assert "jobs-copy/in/put me.txt" in listed


def test_a_job_that_failed_shows_its_event_its_attempts_and_why(on: Dioscar, cluster: Cluster) -> None:
    cluster.deploy("jobs-why", script="echo broken pipe work; exit 3", annotations={"dioscar/retries": "1"})
    cluster.put("jobs-why", "in/a", b"12345")
    (job,) = cluster.ended("jobs-why")
    shown = on("jobs", "show", job["id"])
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert lines[0] == f"{job['id']} Dead"
    assert any(re.fullmatch(r"event s3:ObjectCreated:Put at 20\S+Z by \S+, 5 B", line) for line in lines), lines
    assert "attempt 2 of 2" in lines
    assert "exit code 3" in lines
    assert "reason the script ended with status 3: broken pipe work" in lines
    assert f"log dioscar logs {short(job)}" in lines
    steps = [re.sub(r"[\d.]+ m?s\b", "T", line) for line in lines if line.startswith("+")]
    assert steps == [
        "+T Pending",
        "+T Running (attempt 1)",
        "+T Failed (attempt 1) after T the script ended with status 3: broken pipe work",
        "+T Retrying (attempt 1) in T",
        "+T Running (attempt 2)",
        "+T Failed (attempt 2) after T the script ended with status 3: broken pipe work",
        "+T Dead (attempt 2)",
    ]
    assert on("jobs", "show", "--json", job["id"]).json["event"]["Key"] == "jobs-why/in/a"


def test_a_direct_call_shows_how_much_it_brought(on: Dioscar, copier: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("four")
    job = on("invoke", copier, tmp_path / "a.txt", "--async", "--json").json["job"]
    assert "8 B by /job/jobs-copy" in on("jobs", "show", job).out, "as base64"


def test_a_direct_call_has_an_input_too_and_no_job_is_older_than_itself() -> None:
    job = {"id": "a", "state": "Running", "created": 9, "started": 9, "finished": None, "bucket": "", "key": ""}
    ((_, _, _, age, took, place, _),) = _rows([job])
    assert (age, place) == (took, "(direct call)")


def test_show_needs_one_job(on: Dioscar) -> None:
    for arguments in (("show",), ("show", "a", "b"), ("a", "b")):
        said = on("jobs", *arguments)
        assert said.status == 2
        assert "write one JOB, or none for the list" in said.err


def test_failed_is_what_others_call_dead(on: Dioscar, failing: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("error")
    job = on("invoke", failing, tmp_path / "a.txt", "--async", "--json").json["job"]
    on("logs", "-f", job)
    found = on("jobs", "--service", failing, "--state", "failed", "--json").json
    assert job in [entry["id"] for entry in found]
    assert {entry["state"] for entry in found} == {"Dead"}


def test_jobs_are_selected_by_service_and_state(on: Dioscar, copier: str, failing: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("error")
    job = on("invoke", failing, tmp_path / "a.txt", "--async", "--json").json["job"]
    on("logs", "-f", job)
    found = on("jobs", "--service", failing, "--state", "dead", "--json").json
    assert job in [entry["id"] for entry in found]
    assert {entry["state"] for entry in found} == {"Dead"}
    assert on("jobs", "--service", failing, "--state", "Running").out == "No jobs like that.\n"
    assert on("jobs", "--state", "happy").status == 2


def test_a_function_that_failed_is_known_by_its_reply_where_the_status_says_nothing() -> None:
    assert is_failure(b'{"error": {"type": "InputError", "message": "no"}}')
    assert not is_failure(b'{"error": {"type": "InputError", "message": "no"}, "labels": []}')
    assert not is_failure(b'{"error": 0.5}')
    assert not is_failure(b'{"error"')
    assert not is_failure(bytes(range(256)))


def test_a_reply_that_is_no_base64_is_itself() -> None:
    assert decode_reply("aGVsbG8=\n") == b"hello"
    assert decode_reply("just text") == b"just text"
    assert decode_reply("Größe") == "Größe".encode()


def test_the_list_can_be_watched_on_a_terminal(cluster: Cluster) -> None:
    cluster.deploy("cli-watch", script="sleep 1")
    command = [sys.executable, "-P", "-m", "infra.cli", "jobs", "--watch", "--cluster", str(cluster.data)]
    ours, theirs = pty.openpty()
    wide = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=wide) as watching:
        os.close(theirs)
        reading = threading.Thread(target=_drain, args=(ours, seen := []))
        reading.start()  # to the end: a terminal that nobody reads stops whoever writes to it
        try:
            cluster.put("cli-watch", "in/seen", b"")
            ended = re.compile(rb"cli-watch-\S+[^\n]*Succeeded[^\n]*cli-watch/in/seen")
            eventually(lambda: ended.search(b"".join(seen)), PATIENCE_S, "the job's end on the terminal")
            assert re.search(rb"cli-watch-\S+[^\n]*Running", b"".join(seen))
            watching.send_signal(signal.SIGINT)
            assert watching.wait(10) == 0
        finally:
            watching.kill()
            reading.join()
            signal.signal(signal.SIGINT, before)
    os.close(ours)


def _drain(terminal: int, seen: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # whoever wrote to it has ended
        while data := os.read(terminal, 65536):
            seen.append(data)


def test_watching_needs_a_terminal(dioscar: Dioscar, cluster: Cluster) -> None:
    said = dioscar("jobs", "--watch", "--cluster", cluster.data)
    assert said.status == 2
    assert "--watch needs a terminal" in said.err
