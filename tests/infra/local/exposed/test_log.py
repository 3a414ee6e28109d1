"""The log of an exposed service: lines with their times, of bounded length."""

import re
from pathlib import Path

from infra.local.exposed.log import LONGEST, MOST, TAIL, ServiceLog


def test_each_line_has_its_time_however_it_arrives(tmp_path: Path):
    log = ServiceLog(tmp_path / "log")
    for piece in (b"one\ntw", b"o\r\n", b"\n", b"last"):
        log.feed(piece)
    assert [message for _, message in log.tail(10)] == ["one", "two", ""]
    log.flush()
    stamps, messages = zip(*log.tail(2), strict=True)
    assert messages == ("", "last")
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", stamp) for stamp in stamps)


def test_the_last_thing_said_is_not_the_clusters(tmp_path: Path):
    log = ServiceLog(tmp_path / "log")
    log.note("starting")
    assert log.last_line() == ""
    log.feed(b"no luck\n\n")
    assert log.last_line() == "no luck"
    log.note("starting")
    assert log.last_line() == ""


def test_it_does_not_grow_without_end(tmp_path: Path):
    log = ServiceLog(tmp_path / "log")
    line = b"x" * 1023 + b"\n"
    for _ in range(14):
        log.feed(line * 1024)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert sum(sizes) < 3 * MOST
    assert all(message == "x" * 1023 for _, message in log.tail(1000))
    assert sum(len(message) for _, message in log.tail(10**6)) < TAIL


def test_a_line_without_end_is_several(tmp_path: Path):
    log = ServiceLog(tmp_path / "log")
    for _ in range(100):
        log.feed(b"y" * 1000)
    log.feed(b"z" * (3 * LONGEST) + b"\n")
    assert max(len(message) for _, message in log.tail(1000)) == LONGEST
    assert sum(len(message) for _, message in log.tail(1000)) == 100_000 + 3 * LONGEST


def test_a_disk_that_takes_nothing_costs_lines_and_nothing_else(tmp_path: Path):
    log = ServiceLog(tmp_path / "nowhere" / "log")
    log.feed(b"lost\n")
    assert log.tail(10) == []
