"""Does what its input says, none of it good; beside an honest output."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from layers.runtime import Job


def run(source: Path, destination: Path, settings: object, job: Job) -> None:
    how = source.read_text()
    (destination / "done.txt").write_text(how)
    globals()[f"_{how.replace('-', '_')}"](destination)


def _fine(_: Path) -> None:
    pass


def _exit(_: Path) -> None:
    os._exit(7)


def _segfault(_: Path) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang(_: Path) -> None:
    time.sleep(600)


def _stubborn(_: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def _child(_: Path) -> None:
    subprocess.Popen(["sleep", "601"])


def _daemon(_: Path) -> None:
    """A child of nobody, in a session of its own, that keeps every descriptor."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(602)
        os._exit(0)


def _daemon_and_exit(_: Path) -> None:
    _daemon(_)
    os._exit(7)


def _print(_: Path) -> None:
    line = b"x" * 1023 + b"\n"
    for _number in range(1 << 10):
        os.write(1, line * 1024)
    print("the last line")


def _files(destination: Path) -> None:
    for number in range(100_000):
        (destination / str(number)).touch()


def _delete(destination: Path) -> None:
    subprocess.run(["rm", "-rf", destination.parent], check=True)


def _chdir(_: Path) -> None:
    os.chdir("/")


def _close(_: Path) -> None:
    os.closerange(0, 1000)


def _close_and_hang(_: Path) -> None:
    os.closerange(0, 1000)
    time.sleep(600)


def _memory(_: Path) -> None:
    kept = []
    while True:
        kept.append(b"x" * (8 << 20))
        time.sleep(0.01)


def _memory_of_children(_: Path) -> None:
    """Each of four takes a part; together it is too much."""
    for _number in range(4):
        if os.fork() == 0:
            kept = b"x" * (40 << 20)
            time.sleep(600)
            sys.exit(len(kept))
    os.wait()


def _map(destination: Path) -> None:
    """Maps, and reads, more than the memory that it has: a file's pages are not its own."""
    import mmap

    with (destination.parent / "large").open("w+b") as file:
        file.truncate(400 << 20)
        with mmap.mmap(file.fileno(), 400 << 20, prot=mmap.PROT_READ) as mapped:
            total = sum(mapped[at] for at in range(0, len(mapped), 4096))
            time.sleep(1)
    (destination.parent / "large").unlink()
    assert total == 0
