"""A log that grows too long keeps its beginning and its end, whoever writes to it meanwhile."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.local.executors import limits
from infra.local.executors.limits import Watch, trim

MOST, HEAD, TAIL = 8 << 20, 4 << 20, 1 << 20
WRITER = """\
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for number in range(int(sys.argv[2])):
    os.write(log, b"%-1023d\\n" % number)
"""
LINES = 60_000


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    for name, value in (("LOG_MOST", MOST), ("LOG_HEAD", HEAD), ("LOG_TAIL", TAIL)):
        monkeypatch.setattr(limits, name, value)
    (log := tmp_path / "log").touch()
    return Watch(1, 0, log)


def numbers(part: bytes) -> list[int]:
    return [int(line) for line in part.splitlines() if line.strip().isdigit()]


def blocks(folder: Path) -> bool:
    """Whether the file system takes blocks out of a file."""
    with (folder / "trial").open("w+b") as file:
        file.write(bytes(4 << 20))
        file.flush()
        return limits._collapse(file.fileno(), 1 << 20, 1 << 20)


@pytest.mark.parametrize("way", ["in blocks", "moved"])
def test_what_is_kept_and_what_is_said(watch: Watch, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if way == "moved":
        monkeypatch.setattr(limits, "_collapse", lambda *_: False)
    elif not blocks(watch.log.parent):
        pytest.skip("this file system takes no blocks out of a file")
    for first in (0, 20_000):  # the second time it has grown again
        with watch.log.open("ab") as log:
            log.writelines(b"%-1023d\n" % number for number in range(first, first + 20_000))
        trim(watch)
    data = watch.log.read_bytes()
    assert len(data) <= MOST
    found = re.search(rb"\n\[dioscar: ([0-9.]+) MiB are left out here: a log holds 8 MiB\] +\n", data)
    assert found is not None and found.end() == HEAD
    before, after = numbers(data[: found.start()]), numbers(data[found.end() :])
    assert before == list(range(len(before))) and len(before) >= 4094
    assert after[-1] == 39_999 and after == list(range(after[0], 40_000)) and len(after) >= 1023
    assert float(found[1]) == pytest.approx((40_000 - len(before) - len(after)) / 1024, abs=0.1)
    trim(watch)
    assert watch.log.read_bytes() == data, "what is short enough stays as it is"


def test_nothing_that_is_written_meanwhile_is_lost(watch: Watch) -> None:
    if not blocks(watch.log.parent):
        pytest.skip("this file system takes no blocks out of a file")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(watch.log), str(LINES)])
    with ThreadPoolExecutor(2) as two:  # the end of a run and a look at it come together
        while writer.poll() is None:
            list(two.map(trim, (watch, watch)))
    assert writer.returncode == 0
    trim(watch)
    data = watch.log.read_bytes()
    after = numbers(data[HEAD:])
    assert after == list(range(after[0], LINES))
    left_out = LINES * 1024 + limits.LOG_NOTE - len(data)
    assert watch.left_out == left_out, "and what is left out is counted"
