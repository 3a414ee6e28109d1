"""A plugin that does what a test says: it speaks interLink's protocol in literal JSON, and shares no code with ours."""

import json
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.cluster import eventually

WAITING = '{"waiting": {"reason": "Priority", "message": "3 jobs are before it"}}'
RUNNING = '{"running": {"startedAt": "%s"}}'
TERMINATED = '{"terminated": {"exitCode": %d, "reason": "Completed", "message": "%s"}}'
NOT_CREATED = '{"waiting": {"reason": "NotCreated"}}'


class StandIn:
    """One plugin on a unix socket; `go` makes it answer as the official Go plugin for Slurm does where that differs."""

    def __init__(self, path: Path, *, go: bool = False) -> None:
        self.path = path
        self.go = go
        self._server: _Server | None = None
        self.reset()

    def reset(self) -> None:
        """Nothing has happened yet."""
        self.pods: dict[str, dict[str, Any]] = {}
        self.states: dict[str, str] = {}
        self.logs: dict[str, bytes] = {}
        self.first: dict[str, tuple[str, bytes]] = {}
        self.creates: list[str] = []
        self.deleted: list[str] = []
        self.questions: list[int] = []
        self.refuse = ""
        self.sign_of_life = False
        self.refusal = 500
        self.hold = threading.Event()
        self.hold.set()

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = _Server(str(self.path), _Handler)
        self._server.plugin = self
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.hold.set()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            for connection in list(server.connections):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            server.server_close()
        self.path.unlink(missing_ok=True)

    def pod(self, number: int = 0) -> str:
        """The uid of a pod, by the order in which they came."""
        return eventually(lambda: list(self.pods)[number : number + 1] or None, what=f"pod {number}")[0]

    def run(self, uid: str) -> None:
        self.states[uid] = RUNNING % time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

    def end(self, uid: str, code: int = 0, message: str = "") -> None:
        self.states[uid] = TERMINATED % (code, message)

    def end_first(self, uid: str, code: int, message: str, printed: bytes) -> None:
        """The init container has failed, so that the other has not started."""
        self.first[uid] = (TERMINATED % (code, message), printed)
        self.end(uid, code, "did not start")

    def env(self, uid: str) -> dict[str, str]:
        return {one["name"]: one["value"] for one in self.pods[uid]["pod"]["spec"]["containers"][0]["env"]}

    def create(self, body: Any) -> tuple[int, str]:
        uid = str(body["pod"]["metadata"]["uid"])
        self.creates.append(uid)
        self.hold.wait(60)
        if self.refuse:
            return self.refusal, self.refuse
        self.pods[uid] = body
        self.states.setdefault(uid, WAITING)
        self.logs.setdefault(uid, b"")
        return 200, json.dumps({"PodUID": uid, "PodJID": str(len(self.pods))})

    def status(self, body: Any) -> tuple[int, str]:
        if body:
            self.questions.append(len(body))
        return 200, f"[{', '.join(map(self._status, body))}]"

    def delete(self, body: Any) -> tuple[int, str]:
        uid = str(body["metadata"]["uid"])
        self.deleted.append(uid)
        self.states.pop(uid, None)
        if self.go:
            self.logs.pop(uid, None)
        return 200, "deleted"

    def _status(self, pod: Any) -> str:
        of = pod["metadata"]
        state = self.states.get(of["uid"], "{}" if self.go else NOT_CREATED)
        name, uid, namespace = (json.dumps(of[key]) for key in ("name", "uid", "namespace"))
        containers = f'[{{"name": "oscar-container", "state": {state}}}]'
        state, _ = self.first.get(of["uid"], ("", b""))
        first = f', "initContainers": [{{"name": "supervisor-container", "state": {state}}}]' if state else ""
        return f'{{"name": {name}, "UID": {uid}, "namespace": {namespace}, "containers": {containers}{first}}}'


@contextmanager
def standing_in(path: Path, *, go: bool = False) -> Iterator[StandIn]:
    plugin = StandIn(path, go=go)
    plugin.start()
    try:
        yield plugin
    finally:
        plugin.stop()


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128
    plugin: StandIn

    def __init__(self, *arguments: Any) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        return


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self._body()
        plugin = self._plugin()
        if self.path == "/getLogs":
            self._logs(plugin, body)
        else:
            self._answer(*plugin.status(body))

    def do_POST(self) -> None:
        body = self._body()
        plugin = self._plugin()
        self._answer(*(plugin.create(body) if self.path == "/create" else plugin.delete(body)))

    def _plugin(self) -> StandIn:
        assert isinstance(self.server, _Server)
        return self.server.plugin

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _logs(self, plugin: StandIn, body: Any) -> None:
        uid = body["PodUID"]
        if uid not in plugin.logs:
            self._answer(500, "no such pod")
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        if body["Opts"]["Follow"] and plugin.sign_of_life:
            self._chunk(b"\n")
        while True:
            initial = body["ContainerName"] == "supervisor-container"
            chunk = (plugin.first[uid][1] if initial else plugin.logs.get(uid, b""))[sent:]
            sent += len(chunk)
            if chunk:
                self._chunk(chunk)
            elif not body["Opts"]["Follow"] or '"running"' not in plugin.states.get(uid, ""):
                break
            else:
                time.sleep(0.02)
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        return
