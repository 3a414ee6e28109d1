"""Tables on terminals: what explains is cut where it does not fit, what is pasted never is."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest
from rich.console import Console

from infra.cli.jobs import COLUMNS
from infra.cli.output import make_table
from tests.cluster import Cluster

JOB = "calorimeter-reconstruct-311abcde"


@pytest.mark.parametrize("width", [40, 80, 120, 300, None])
def test_a_narrow_terminal_cuts_what_explains_and_no_name(width: int | None) -> None:
    note = "gone/x.fil: " + "is no telescope file; " * 10
    place = "calorimeter-reconstruct/in/2026/run-0001/events.root"
    rows = [
        [JOB, "Retrying", "1/4", "12 min 15 s", "11 min 10 s", place, note],
        [JOB, "Dead", "4/4", "1 s", "-", "", ""],
    ]
    screen = Console(width=10_000, color_system=None)
    with screen.capture() as capture:
        screen.print(make_table(COLUMNS, rows, width))
    head, line, _ = [line.rstrip() for line in capture.get().splitlines()]
    assert line.startswith(f"{JOB}  Retrying  1/4  12 min 15 s")
    needed = len(f"{JOB}  Retrying  1/4  12 min 15 s")
    assert len(line) <= max(width or 1000, needed)
    if width == 80:
        assert "NOTE" not in head and "11 min 10 s" not in line
    if width == 120:
        assert "11 min 10 s" in line and line.endswith("\N{HORIZONTAL ELLIPSIS}")
        assert "NOTE" in head and "events.root" in line
    if width is None:
        assert place in line and note.strip() in line


def test_on_a_terminal_every_line_of_a_list_fits(cluster: Cluster) -> None:
    cluster.deploy("cli-narrow", script="echo 'it will not, ' $(seq 60) >&2; exit 65")
    cluster.put("cli-narrow", "in/a-file-with-a-rather-long-name-that-fills-the-line.fil", b"")
    cluster.ended("cli-narrow")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-P", "-m", "infra.cli", "jobs", "--service", "cli-narrow"]
    command += ["--cluster", str(cluster.data)]
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    done = subprocess.run(command, stdout=theirs, stdin=theirs, stderr=theirs, env={**environment, "TERM": "xterm"})
    os.close(theirs)
    said = re.sub(r"\x1b\[[0-9;]*m", "", os.read(ours, 65536).decode())
    os.close(ours)
    assert done.returncode == 0
    assert re.search(r"^cli-narrow-[0-9a-f]{8}  Dead ", said, re.MULTILINE)
    assert max(map(len, said.splitlines())) <= 80
