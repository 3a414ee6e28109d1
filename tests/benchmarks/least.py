"""The least that a synchronous call of a function can be: HTTP, another process, and files, with nothing else to it.

A function is given its input as a file and gives its output as one, in a process that is not the server's. This does
that and nothing else: no service, no token, no settings, no limits, no log, no errors.
"""

import asyncio
import base64
import os
import struct
import sys
from collections import deque
from pathlib import Path
from typing import Any

WORKERS = 2
LENGTH = struct.Struct("<I")


class Front:
    """ASGI without a framework: the body, decoded, goes to a worker that is free; what it answers, encoded, back."""

    def __init__(self) -> None:
        self._free: deque[asyncio.subprocess.Process] = deque()
        self._waiting: deque[asyncio.Future[asyncio.subprocess.Process]] = deque()

    async def start(self) -> None:
        for _ in range(WORKERS):
            command = [sys.executable, "-P", "-c", "from tests.benchmarks.least import work; work()"]
            pipe = asyncio.subprocess.PIPE
            self._free.append(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        chunks, more = [], True
        while more:
            message = await receive()
            chunks.append(message.get("body", b""))
            more = message.get("more_body", False)
        reply = base64.b64encode(await self._ask(base64.b64decode(b"".join(chunks))))
        headers = [(b"content-length", b"%d" % len(reply))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    async def _ask(self, body: bytes) -> bytes:
        if self._free:
            worker = self._free.popleft()
        else:
            self._waiting.append(asyncio.get_running_loop().create_future())
            worker = await self._waiting[-1]
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(LENGTH.pack(len(body)) + body)
        (length,) = LENGTH.unpack(await worker.stdout.readexactly(LENGTH.size))
        reply = await worker.stdout.readexactly(length)
        if self._waiting:
            self._waiting.popleft().set_result(worker)
        else:
            self._free.append(worker)
        return reply


def serve(port: int) -> None:
    """Answer on loopback until the process is ended."""
    import uvicorn
    import uvloop

    async def run() -> None:
        front = Front()
        await front.start()
        config = uvicorn.Config(front, host="127.0.0.1", port=port, http="httptools", lifespan="off", log_level="error")
        await uvicorn.Server(config).serve()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def work() -> None:
    """For each frame on standard input: a folder of its own, the input and the output as files, and nothing left."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    scratch = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp", f"least-{os.getpid()}")
    received, produced = scratch / "input", scratch / "output"
    source, made = received / "payload", produced / "payload.time"
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        body = requests.read(LENGTH.unpack(head)[0])
        for folder in (scratch, received, produced):
            folder.mkdir()
        source.write_bytes(body)
        made.write_text(str(len(source.read_bytes())))
        reply = made.read_bytes()
        for file in (source, made):
            file.unlink()
        for folder in (received, produced, scratch):
            folder.rmdir()
        replies.write(LENGTH.pack(len(reply)) + reply)
        replies.flush()
