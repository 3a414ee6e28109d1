"""Runs one job of `infra.hpc.local` and writes down how it ended: `python -I runner.py FOLDER`, standard library only.

It outlives the plugin that has started it. Every process that its script leaves behind comes to it, and ends with it.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

JOB, RUNNING, ENDED, CANCEL = "job.json", "running.json", "ended.json", "cancel"
MARK = "DIOSCAR_HPC_JOB"
KILL_AFTER_S = 30.0
"""Between SIGTERM and SIGKILL of a job that is cancelled."""
PR_SET_CHILD_SUBREAPER = 36
SIGNALS = (signal.SIGCHLD, signal.SIGTERM)


def start(folder: Path) -> int:
    """Go on in a process that belongs to nobody; returns where the job has been taken, by it or by one before it."""
    heard, told = os.pipe()
    if os.fork():
        os.close(told)
        return 0 if os.read(heard, 1) else 1
    os.close(heard)
    os.setsid()
    main(folder, told)
    return 0


def main(folder: Path, told: int) -> None:
    job = json.loads((folder / JOB).read_bytes())
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    started = time.time()
    mine = _claim(folder, {"pid": os.getpid(), "start": start_of(os.getpid()), "boot": boot(), "started": started})
    os.write(told, b"1")
    os.close(told)
    if not mine:
        return
    if (folder / CANCEL).exists():
        write(folder / ENDED, {"state": "CANCELLED", "ended": time.time(), "started": None})
        return
    state, reason, status = "", "", 0
    try:
        state, reason, status = _run(folder, job)
    except OSError as error:
        state, reason, status = "FAILED", f"cannot be started: {error.strerror or error}", 1 << 8
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    end = {"state": state, "reason": reason, "started": started, "ended": time.time(), "exit_code": code}
    write(folder / ENDED, {**end, "signal": number})


def _run(folder: Path, job: dict[str, Any]) -> tuple[str, str, int]:
    """The job's state, the reason for it, and the wait status of its script."""
    begin = time.monotonic()
    limit = job["limit_s"] or float("inf")
    stop_at, kill_at = begin + limit - min(job["grace_s"], limit / 2), begin + limit
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    process = subprocess.Popen(
        ["/bin/sh", job["script"]],
        cwd=job["folder"],
        env={**os.environ, MARK: folder.name},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()),
    )
    os.close(output)
    cancelled = False
    status: int | None = None
    while status is None:
        wake = min(stop_at, kill_at) - time.monotonic()
        caught = signal.sigtimedwait(SIGNALS, min(max(wake, 0.0), 3600.0))
        now = time.monotonic()
        if caught is not None and caught.si_signo == signal.SIGTERM and not cancelled:
            cancelled = (folder / CANCEL).exists()
            stop_at, kill_at = now, min(kill_at, now + KILL_AFTER_S)
        status = _reaped(process.pid)
        if status is not None:
            break
        if now >= kill_at:
            _kill_all()
            kill_at = now + 1.0
        elif now >= stop_at:
            stop_at = float("inf")
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
    process.returncode = 0  # it has been waited for
    timed_out = time.monotonic() >= begin + limit
    _kill_all()
    if cancelled:
        return "CANCELLED", "", status
    if timed_out and status:
        return "TIMEOUT", f"ran for longer than its {limit:g} s", status
    return ("FAILED" if status else "COMPLETED"), "", status


def _reaped(wanted: int) -> int | None:
    """Wait for whatever has ended; the status of the process `wanted`, if it is among it."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == wanted:
                found = status
    return found


def _kill_all() -> None:
    """Kill all descendants: again, until none is born any more."""
    for _ in range(100):
        pids = list(_descendants(os.getpid()))
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _descendants(pid: int) -> Iterator[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = _stat(int(entry.name))
                if fields[0] != "Z":
                    parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    yield from found[1:]


def start_of(pid: int) -> str:
    """When a process began, in ticks of this boot; empty if it is not there, or has ended and not been waited for."""
    try:
        fields = _stat(pid)
    except (OSError, IndexError):
        return ""
    return "" if fields[0] == "Z" else fields[19]


def boot() -> str:
    """What tells this boot of the machine from others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def write(path: Path, content: object) -> None:
    """Write a file so that it is there as a whole or not at all, also after a power cut."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    _write_part(part, content)
    part.replace(path)
    _sync(path.parent)


def _claim(folder: Path, content: object) -> bool:
    part = folder / f".{RUNNING}.{os.getpid()}"
    _write_part(part, content)
    try:
        os.link(part, folder / RUNNING)
    except FileExistsError:
        return False
    finally:
        part.unlink()
    _sync(folder)
    return True


def _write_part(part: Path, content: object) -> None:
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123 - it has a mode of its own
        json.dump(content, stream)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _stat(pid: int) -> list[str]:
    """The fields of a process's stat after its name, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(start(Path(sys.argv[1])))
