"""The warm worker: a process that has imported a function once and serves many invocations, one at a time.

Started with one end of a socket pair (`--fd N`, and `--logs N` of another one); speaks the frames of `wire`. Each
request is `{"environ": {...}, "log": PATH | null, "folder": PATH | null}` (the job's own variables, on top of those of
the process; without a log, what is printed goes where the process's own output goes); each reply is the outcome.

With a `folder`, the frame's body is the input: the worker makes the folder, writes the input to INPUT_FILE_PATH, and
sends the outputs back in the frame (`files`: paths and sizes), the folder removed; or leaves it, where they are large
(`files` is null). So a small run costs its engine no file.

`{"ready": true}` comes first; `{"stale": true}` is the answer, and the end, of a worker whose sources have changed
since it loaded them. SIGTERM while a job runs sets `job.stopping`; while idle it ends the worker.
"""

import argparse
import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any

from layers.runtime import function as functions
from layers.runtime import parcels, wire
from layers.runtime.adapter import outcome_as_json, run_from_environment
from layers.runtime.contract import InputError

PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Serve until the engine closes the socket."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the worker's end of a socket pair")
    parser.add_argument("--logs", type=int, help="the worker's end of another one, through which open logs come")
    arguments = parser.parse_args()
    channel = socket.socket(fileno=arguments.fd)
    channel.set_inheritable(False)
    logs = None if arguments.logs is None else socket.socket(fileno=arguments.logs)
    if logs is not None:
        logs.set_inheritable(False)
    stopping = threading.Event()
    busy = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if not busy.is_set():
            os._exit(0)
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the engine's to handle
    _adopt()
    own = dict(os.environ)
    sources = None
    with contextlib.suppress(InputError):  # each invocation reports it in its own log
        sources = functions.Sources(functions.load(own.get("DIOSCAR_FUNCTION", "")).folder)
    served = False
    with channel, channel.makefile("rb") as stream:
        channel.sendall(wire.pack({"ready": True}))
        while (frame := wire.read(stream)) is not None:
            if served and (sources is None or sources.changed()):
                channel.sendall(wire.pack({"stale": True}))
                return 0
            stopping.clear()
            busy.set()
            channel.sendall(_serve(own, *frame, stopping, logs))
            served = True
            busy.clear()
    return 0


@contextlib.contextmanager
def _output_to(log: str | None, logs: socket.socket | None) -> Iterator[None]:
    """Within it, what is printed goes to `log`, at the level of file descriptors, so that C libraries' goes along.

    Where there are `logs`, the open file comes through them: a worker need not see the folder that it stands in.
    """
    if log is None:
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return
    if logs is None:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    else:
        file = socket.recv_fds(logs, 1, 1)[1][0]
    saved = os.dup(1), os.dup(2)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def _serve(
    own: Mapping[str, str],
    request: dict[str, Any],
    body: bytes,
    stopping: threading.Event,
    logs: socket.socket | None,
) -> bytes:
    """Run one invocation; returns the frame that answers it."""
    environ = {**own, **request["environ"]}
    folder = request["folder"]
    if folder:
        try:
            parcels.unpack(folder, environ, body)
        except OSError as error:
            return wire.pack({"errno": error.errno, "strerror": f"{folder}: {error.strerror}"})
    tempfile.tempdir = environ.get("TMPDIR")
    with _output_to(request["log"], logs):
        outcome = run_from_environment(environ, stopping, body if folder else None)
    reply = outcome_as_json(outcome)
    reply["left_running"] = _left_running()
    reply["peak_rss_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if not folder:
        return wire.pack({**reply, "files": None})
    contents = [one.data for one in outcome.outputs if one.data is not None]
    if len(contents) < len(outcome.outputs):
        return wire.pack({**reply, "files": None})
    parcels.remove(folder)
    files = [(one.path, one.size) for one in outcome.outputs]
    return wire.pack({**reply, "files": files}, b"".join(contents))


def _adopt() -> None:
    """Have what the function's processes leave running become children of this one, so that it sees them."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _left_running() -> bool:
    """Whether something that the run has started is still there: one system call where there is nothing."""
    with contextlib.suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return True
    return False


if __name__ == "__main__":
    sys.exit(main())
