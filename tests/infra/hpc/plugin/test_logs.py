"""Containers' logs, with each option that Kubernetes has."""

import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.hpc import logs
from infra.hpc.batch import BatchState
from infra.hpc.logs import BLOCK, Notes, Part, select
from infra.hpc.protocol import LogOptions
from tests.infra.hpc.plugin.fake import INIT, MAIN, Client, oscar_pod, serving, until


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A plugin with a pod that runs."""
    with serving(tmp_path_factory.mktemp("plugin")) as client:
        client.create(oscar_pod())
        client.batch.set("1", BatchState.RUNNING)
        client.run(0, None)
        until(lambda: "running" in client.state(oscar_pod()["pod"]))
        yield client


def test_a_log_comes_whole_and_by_container(plugin: Client) -> None:
    plugin.write("log", "one\ntwo\nthree\n")
    plugin.write("log", "copied\n", INIT)
    reply = plugin.logs()
    assert (reply.status_code, reply.text) == (200, "one\ntwo\nthree\n")
    assert reply.headers["content-type"].startswith("text/plain")
    assert plugin.logs(INIT).text == "copied\n"


def test_tail_and_bytes(plugin: Client) -> None:
    plugin.write("log", "one\ntwo\nthree")
    assert plugin.logs(Tail=1).text == "three"
    assert plugin.logs(Tail=2).text == "two\nthree"
    assert plugin.logs(Tail=100).text == "one\ntwo\nthree"
    assert plugin.logs(Bytes=6).text == "one\ntw"


def test_a_log_that_is_not_there_yet_is_empty(plugin: Client) -> None:
    (plugin.folder() / f"{MAIN}.log").unlink(missing_ok=True)
    reply = plugin.logs()
    assert (reply.status_code, reply.text) == (200, "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"Tail": 1, "Bytes": 1}, "Opts: Tail and Bytes cannot both be given"),
        ({"SinceSeconds": 1, "SinceTime": "2026-01-01T00:00:00Z"}, "Opts: SinceSeconds and SinceTime"),
        ({"Tail": -1}, "Opts: Tail, Bytes and SinceSeconds cannot be negative"),
        ({"SinceTime": "yesterday"}, "/getLogs: Opts.SinceTime: "),
        ({"Previous": True}, f"container {MAIN} has not run before"),
    ],
)
def test_options_that_make_no_sense(plugin: Client, options: dict[str, object], says: str) -> None:
    reply = plugin.logs(**options)
    assert reply.status_code == 400 and reply.text.startswith(says)


def test_pods_and_containers_that_are_not_known(plugin: Client) -> None:
    reply = plugin.logs("nosuch")
    assert reply.status_code == 404 and reply.text.endswith(f'no container "nosuch"; it has {INIT}, {MAIN}')
    assert plugin.logs(uid="11111111-2f3b-4c6d-8e9f-a0b1c2d3e4f5").status_code == 404
    assert plugin.logs("../pod").status_code == 404


def test_follow_sends_what_is_written_and_ends_with_the_container(tmp_path: Path) -> None:
    with serving(tmp_path) as plugin:
        pod = oscar_pod()
        plugin.create(pod)
        plugin.batch.set("1", BatchState.RUNNING)
        plugin.run(0, None)
        plugin.write("log", "one\n")
        with plugin.logs(Follow=True) as reply:
            lines = reply.iter_lines()
            assert next(lines) == b"one"
            with (plugin.folder() / f"{MAIN}.log").open("a") as log:
                log.write("two\n")
                log.flush()
                assert next(lines) == b"two"
                log.write("last words\n")
            plugin.run(0, 0)
            plugin.batch.set("1", BatchState.COMPLETED)
            assert list(lines) == [b"last words"]


def test_follow_begins_before_the_container_does_and_goes_on_when_it_runs_again(tmp_path: Path) -> None:
    with serving(tmp_path) as plugin:
        plugin.create(oscar_pod())
        with plugin.logs(Follow=True) as reply:
            lines = reply.iter_lines()
            plugin.write("log", "one\n")
            plugin.run(0, None)
            assert next(lines) == b"one"
            plugin.run(0, 75)
            plugin.batch.set("1", BatchState.FAILED)
            until(lambda: len(plugin.batch.jobs()) == 2)
            with (plugin.folder() / f"{MAIN}.log").open("a") as log:
                log.write("two\n")
            assert next(lines) == b"two"
            plugin.delete(oscar_pod()["pod"])
            assert list(lines) == []


def test_follow_ends_when_its_reader_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    read = logs._read
    monkeypatch.setattr(logs, "_LOOK_S", 0.01)
    monkeypatch.setattr(logs, "_read", lambda *arguments: looks.append(1) or read(*arguments))
    with serving(tmp_path) as plugin:
        plugin.create(oscar_pod())
        plugin.write("log", "one\n")
        reply = plugin.logs(Follow=True)
        lines = reply.iter_lines()
        assert next(lines) == b"one"
        until(lambda: len(looks) > 5)
        reply.close()

        def nobody_looks() -> bool:
            before = len(looks)
            time.sleep(0.5)
            return len(looks) == before

        until(nobody_looks)


def test_a_followed_log_that_begins_with_silence_says_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "SILENCE_S", 0.1)
    with serving(tmp_path) as plugin:
        plugin.create(oscar_pod())
        with plugin.logs(Follow=True) as reply:
            assert next(reply.iter_lines()) == b""
        plugin.headers = {}  # another client, which counts bytes
        with plugin.logs(Follow=True) as reply:
            plugin.delete(oscar_pod()["pod"])
            assert list(reply.iter_lines()) == []


def test_a_long_log_is_never_in_memory_as_a_whole(plugin: Client) -> None:
    with (plugin.folder() / f"{MAIN}.log").open("wb") as log:
        for _ in range(64):
            log.write(b"x" * (1 << 20))
    before = _resident()
    size = 0
    with plugin.logs(stream=True) as reply:
        for block in reply.iter_content(1 << 16):
            size += len(block)
    assert size == 64 << 20
    assert _resident() - before < 32 << 20
    plugin.write("log", "")


def test_lines_are_stamped_with_when_they_were_seen(plugin: Client) -> None:
    folder = plugin.folder()
    _timeline(folder, ("one\ntwo\n", 1_790_000_000.25), ("three\nfo", 1_790_000_010.5), ("ur\n", 1_790_000_020.0))
    assert plugin.logs(Timestamps=True).text.splitlines() == [
        "2026-09-21T14:13:20.250000000Z one",
        "2026-09-21T14:13:20.250000000Z two",
        "2026-09-21T14:13:30.500000000Z three",
        "2026-09-21T14:13:30.500000000Z four",
    ]
    assert plugin.logs(SinceTime="2026-09-21T14:13:25Z").text == "three\nfour\n"
    assert plugin.logs(SinceTime="2026-09-21T14:13:35Z").text == "four\n"
    assert plugin.logs(SinceTime="2026-09-21T14:14:00Z").text == ""
    assert plugin.logs(SinceTime="2026-09-21T14:00:00Z", Tail=1).text == "four\n"
    seconds = int(time.time() - 1_790_000_005)
    assert plugin.logs(SinceSeconds=seconds).text == "three\nfour\n" if seconds > 0 else True


def test_the_plugin_notes_times_while_a_pod_runs(tmp_path: Path) -> None:
    with serving(tmp_path) as plugin:
        plugin.create(oscar_pod())
        plugin.batch.set("1", BatchState.RUNNING)
        plugin.run(0, None)
        plugin.write("log", "one\n")
        until(lambda: (plugin.folder() / f"{MAIN}.times").exists())
        [line] = plugin.logs(Timestamps=True).text.splitlines()
        stamp, word = line.split(" ")
        assert word == "one"
        then = datetime.strptime(stamp[:26] + "Z", "%Y-%m-%dT%H:%M:%S.%f%z")
        assert abs((datetime.now(UTC) - then).total_seconds()) < 60


@given(lines=st.lists(st.text("ab", max_size=5), max_size=30), ended=st.booleans(), tail=st.integers(1, 40))
def test_tail_is_what_tail_does(lines: list[str], ended: bool, tail: int) -> None:
    text = "\n".join(lines) + ("\n" if ended and lines else "")
    wanted = "".join(text.splitlines(keepends=True)[-tail:])
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"tail-{os.getpid()}-{threading.get_ident()}.log"
    path.write_text(text)
    try:
        part = select(path, path.with_suffix(".times"), LogOptions(tail=tail), Part(0, None))
        assert text[part.start :] == wanted
    finally:
        path.unlink()


def test_tail_over_many_blocks(tmp_path: Path) -> None:
    path = tmp_path / "c.log"
    lines = [f"{number:04d} " + "x" * 1000 for number in range(3 * BLOCK // 1000)]
    path.write_text("\n".join(lines) + "\n")
    part = select(path, tmp_path / "c.times", LogOptions(tail=150), Part(0, None))
    assert path.read_text()[part.start :].splitlines() == lines[-150:]


def test_notes_are_taken_only_of_what_has_grown(tmp_path: Path) -> None:
    notes = Notes()
    (tmp_path / "c.log").write_text("one\n")
    for _ in range(3):
        notes.take([(tmp_path, ["c", "nosuch"])])
    assert len((tmp_path / "c.times").read_bytes()) == 34


def _timeline(folder: Path, *written: tuple[str, float]) -> None:
    log, times = folder / f"{MAIN}.log", folder / f"{MAIN}.times"
    log.write_text("")
    notes, size = b"", 0
    for text, when in written:
        with log.open("a") as stream:
            stream.write(text)
        size += len(text)
        notes += b"%017.6f %015d\n" % (when, size)
    os.utime(log, (written[-1][1], written[-1][1]))
    times.write_bytes(notes)


def _resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) << 10
    raise AssertionError
