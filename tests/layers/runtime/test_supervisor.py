"""Our supervisor, where the table of the contract does not reach: limits, links, and what is missing."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from events.notifications import Notification, build
from layers.runtime import InputError, storage
from layers.runtime.incoming import StorageEvent, interpret
from layers.runtime.supervisor import encode_reply, followed, regular_files, script_variables, supervise
from tests.cluster import eventually


def environ(script: str, **document: object) -> dict[str, str]:
    """What a pod has in its environment."""
    return {
        "PATH": os.environ["PATH"],
        "SCRIPT": base64.b64encode(script.encode()).decode(),
        "FUNCTION_CONFIG": base64.b64encode(yaml.safe_dump(document).encode()).decode(),
    }


def test_the_reply_is_what_the_script_left() -> None:
    printed = io.BytesIO()
    assert supervise(b"aGk=", environ('cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/x"'), printed) == 0
    assert base64.b64decode(printed.getvalue()) == b"hi"


def test_a_script_that_fails_is_the_supervisors_failure() -> None:
    printed = io.BytesIO()
    assert supervise(b"aGk=", environ("echo no; exit 7"), printed) == 7
    assert printed.getvalue() == b"no\n"


def test_an_output_whose_store_is_not_described_is_refused_before_the_script_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    outputs = [{"storage_provider": "s3.far", "path": "b/out"}]
    with pytest.raises(storage.StorageError, match=r"s3\.far: the service does not describe this store"):
        supervise(b"aGk=", environ(f"touch {ran}", output=outputs), io.BytesIO())
    assert not ran.exists()


@pytest.mark.parametrize(
    "body, given, sentence",
    [
        (b"aGk=", {}, "there is no script: neither the variable SCRIPT nor"),
        (b"a text", {"SCRIPT": "Og=="}, "the body is neither JSON nor base64"),
        (b'{"event": {}, "subscription": "x"}', {"SCRIPT": "Og=="}, "event: dCache event.event.name: is missing"),
    ],
)
def test_what_is_missing_is_one_sentence(body: bytes, given: dict[str, str], sentence: str) -> None:
    command = [sys.executable, "-P", "-m", "layers.runtime.supervisor"]
    ran = subprocess.run(
        command, input=body, env={"PATH": os.environ["PATH"], **given}, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (65, b"")
    assert ran.stderr.decode().startswith(f"supervisor: {sentence}")
    assert ran.stderr.count(b"\n") == 1


def test_an_event_that_no_variable_holds_is_refused() -> None:
    event = interpret(json.dumps(build(Notification("b", "in/a.txt", metadata={"x": "y" * (128 << 10)}))).encode())
    with pytest.raises(InputError, match=r"EVENT: has .* characters, more than an environment variable holds"):
        script_variables(event, "/in", "/out")


def test_the_longest_event_that_a_variable_holds_reaches_the_script() -> None:
    event = interpret(json.dumps(build(Notification("b", "in/a.txt"))).encode())
    assert isinstance(event, StorageEvent)
    longest = event.text + " " * ((128 << 10) - len("EVENT=") - 1 - len(event.text))
    variables = script_variables(StorageEvent(event.notification, event.document, longest), "/in", "/out")
    ran = subprocess.run(["/bin/sh", "-c", "echo ${#EVENT}"], env=variables, capture_output=True, check=True)
    assert int(ran.stdout) == len(longest)
    with pytest.raises(InputError):
        script_variables(StorageEvent(event.notification, event.document, longest + " "), "/in", "/out")


@pytest.fixture
def produced(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "output"
    folder.mkdir(parents=True)
    (folder.parent / "input").mkdir()
    (folder.parent / "input" / "a.txt").write_text("abc")
    return folder


def test_links_to_the_runs_own_files_count_as_files(produced: Path) -> None:
    (produced / "deep").mkdir()
    (produced / "deep" / "b").write_text("b")
    (produced / "one").symlink_to(produced.parent / "input" / "a.txt")
    (produced / "two").symlink_to("deep/b")
    (produced / "three").symlink_to("two")
    (produced / "round").symlink_to(".")
    assert regular_files(produced) == ["deep/b", "one", "three", "two"]
    assert [followed(produced / name).read_text() for name in ("one", "two", "three")] == ["abc", "b", "b"]
    assert base64.b64decode(encode_reply(produced, ["one"])) == b"abc"


@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside", "nothing", "self", "/dev/null"])
def test_any_other_link_is_refused(produced: Path, target: str) -> None:
    (produced.parent.parent / "outside").write_text("secret")
    (produced / "self").symlink_to(target)
    with pytest.raises(InputError, match="self: is a link to no file of this run; copy what it leads to"):
        regular_files(produced)


def test_a_pipe_is_no_output(produced: Path) -> None:
    os.mkfifo(produced / "pipe")
    assert regular_files(produced) == []


def started(script: str, marks: Path, **document: object) -> "subprocess.Popen[bytes]":
    """A supervisor process whose script has left the mark `begun`."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "layers.runtime.supervisor"],
        env={**environ(f"cd {marks}; {script}", **document), "JOB_UUID": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdin is not None
    process.stdin.write(b"aGk=")
    process.stdin.close()
    process.stdin = None
    eventually(lambda: (marks / "begun").exists() or process.poll() is not None, what="the script's start")
    return process


@pytest.mark.parametrize(
    "script, code, said",
    [
        ("trap 'sleep 0.3; echo saved; exit 75' TERM; touch begun; while :; do sleep 0.05; done", 75, b"saved\n"),
        ("touch begun; while :; do sleep 0.05; done", 143, b""),
    ],
)
def test_sigterm_reaches_the_script_whose_end_is_waited_for(
    tmp_path: Path, script: str, code: int, said: bytes
) -> None:
    process = started(script, tmp_path)
    process.terminate()
    printed, _ = process.communicate(timeout=60)
    assert (process.returncode, said in printed) == (code, True)


def test_sigterm_before_the_script_is_run_me_again() -> None:
    command = [sys.executable, "-P", "-m", "layers.runtime.supervisor"]
    process = subprocess.Popen(command, env={"PATH": os.environ["PATH"]}, stdin=subprocess.PIPE)
    caught = f"/proc/{process.pid}/status"
    mask = 1 << (signal.SIGTERM - 1)

    def waits() -> bool:
        lines = dict(line.split(":\t") for line in Path(caught).read_text().splitlines() if ":\t" in line)
        return bool(int(lines["SigCgt"], 16) & mask)

    eventually(waits, what="its handler")
    process.terminate()
    assert process.wait(60) == 75
    assert process.stdin is not None
    process.stdin.close()


def test_a_run_that_was_told_to_stop_is_not_followed_by_the_next_object(tmp_path: Path) -> None:
    records = [build(Notification("b", f"in/{name}"))["Records"][0] for name in "ab"]
    event = {**build(Notification("b", "in/a")), "Records": records}
    variables = environ(f'echo "$STORAGE_OBJECT_KEY" >> {tmp_path}/ran; exit 75', file_stage_in=True)
    assert supervise(json.dumps(event).encode(), {**variables, "JOB_UUID": "1"}, io.BytesIO()) == 75
    assert (tmp_path / "ran").read_text() == "in/a\n"


def test_no_object_is_begun_after_sigterm_however_well_the_one_before_has_ended(tmp_path: Path) -> None:
    records = [build(Notification("b", f"in/{name}"))["Records"][0] for name in "ab"]
    event = {**build(Notification("b", "in/a")), "Records": records}
    script = f'trap : TERM; echo "$STORAGE_OBJECT_KEY" >> {tmp_path}/ran; kill -TERM $PPID'
    process = subprocess.run(
        [sys.executable, "-P", "-m", "layers.runtime.supervisor"],
        env={**environ(script, file_stage_in=True), "JOB_UUID": "1"},
        input=json.dumps(event).encode(),
        capture_output=True,
        check=False,
    )
    assert process.returncode == 75, process.stdout + process.stderr
    assert (tmp_path / "ran").read_text() == "in/a\n"
