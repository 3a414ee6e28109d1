"""The warm worker: a process that has imported a function once and serves many invocations, one at a time.

Started with one end of a socket pair (`--fd N`); speaks JSON lines. Each request is `{"environ": {...}, "log": PATH}`
(the job's own variables, on top of those of the process); each reply is the outcome. `{"ready": true}` comes first;
`{"stale": true}` is the answer, and the end, of a worker whose sources have changed since it loaded them. SIGTERM while
a job runs sets `job.stopping`; while idle it ends the worker.
"""

import argparse
import contextlib
import json
import os
import resource
import signal
import socket
import sys
import threading
from types import FrameType
from typing import Any

from layers.runtime import function as functions
from layers.runtime.adapter import outcome_as_json, run_from_environment
from layers.runtime.contract import InputError


def main() -> int:
    """Serve until the engine closes the socket."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the worker's end of a socket pair")
    channel = socket.socket(fileno=parser.parse_args().fd)
    stopping = threading.Event()
    busy = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        if not busy.is_set():
            os._exit(0)
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the engine's to handle
    folder = None
    with contextlib.suppress(InputError):  # each invocation reports it in its own log
        folder = functions.load(os.environ.get("DIOSCAR_FUNCTION", "")).folder
    loaded = functions.state_of(folder) if folder else ()
    with channel, channel.makefile("rb") as stream:
        _send(channel, {"ready": True})
        for served, line in enumerate(stream):
            if served and (folder is None or functions.state_of(folder) != loaded):
                _send(channel, {"stale": True})
                return 0
            request = json.loads(line)
            stopping.clear()
            busy.set()
            reply = _serve(request, stopping)
            _send(channel, reply)
            busy.clear()
    return 0


def _serve(request: dict[str, Any], stopping: threading.Event) -> dict[str, Any]:
    """Run one invocation, its output redirected at the level of file descriptors, so that C libraries' goes along."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    saved = os.dup(1), os.dup(2)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    try:
        outcome = run_from_environment({**os.environ, **request["environ"]}, stopping)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**outcome_as_json(outcome), "peak_rss_bytes": peak_kib * 1024}


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
