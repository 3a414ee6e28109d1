"""Killed at one step: whatever the cluster had asked of the store, and not yet written down, comes again."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cluster import Cluster, eventually
from tests.infra.local.external.linked import TOKEN, Linked, linked

COPY = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"'
OFTEN_S = 0.5


class Between:
    """Stands between a cluster and its store; once, after the request that is named, it does something unheard of."""

    def __init__(self, port: int) -> None:
        between = self
        self.after: tuple[str, str] = ("", "")
        self.then: Callable[[], object] = lambda: None
        self.struck = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                store = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                try:
                    store.request(self.command, self.path, body=body or None, headers=dict(self.headers.items()))
                    answer = store.getresponse()
                    data = answer.read()
                finally:
                    store.close()
                if (self.command, self.path) == between.after and not between.struck.is_set():
                    between.struck.set()
                    between.then()
                    self.close_connection = True
                    return
                self.send_response(answer.status)
                length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length or "0")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data)

            do_HEAD = do_PUT = do_DELETE = do_POST = do_GET  # noqa: N815 - the names that the library wants

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def between(folder: Path, method: str, path: str) -> Iterator[tuple[Linked, Between]]:
    """A cluster that dies after that request has reached its store, and before it has the answer."""
    with linked(folder, period_s=OFTEN_S, start=False) as world:
        world.gateway.start(world.hook, TOKEN)
        proxy = Between(world.gateway.port)
        thread = threading.Thread(target=proxy.server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        cluster = world.cluster
        cluster.options = (*cluster.options[:2], "--s3-external", proxy.url)
        try:
            cluster.start()
            cluster.deploy("step-last", script=COPY)
            variables = {"DIOSCAR_FUNCTION": "contract.copy", "FORWARD": "*.copy -> step-last/in"}
            cluster.deploy("step-first", variables=variables)
            world.set_up()
            proxy.after, proxy.then = (method, path), cluster.kill
            yield world, proxy
        finally:
            if cluster.process is not None and cluster.process.poll() is None:
                cluster.stop()
            proxy.server.shutdown()
            thread.join()
            proxy.server.server_close()


def die_and_come_back(world: Linked, proxy: Between) -> Cluster:
    world.put("step-first/in/a", b"data")
    assert proxy.struck.wait(30)
    eventually(lambda: world.cluster.process is not None and world.cluster.process.poll() is not None)
    world.cluster.start()
    eventually(lambda: world.cluster.jobs(service="step-last", state="Succeeded"), what="the end of the chain")
    before = world.health()["listed"]
    eventually(lambda: world.health()["listed"] != before)
    assert world.read("step-last/out/a.copy") == b"data"
    assert [job["state"] for job in world.cluster.jobs(service="step-first")] == ["Succeeded"]
    return world.cluster


def test_between_asking_for_an_upload_and_recording_it(tmp_path: Path):
    with between(tmp_path, "HEAD", "/step-first/in/a") as (world, proxy):
        cluster = die_and_come_back(world, proxy)
        assert [job["state"] for job in cluster.jobs(service="step-last")] == ["Succeeded"]


@pytest.mark.slow
def test_between_reading_an_input_and_the_run(tmp_path: Path):
    with between(tmp_path, "GET", "/step-first/in/a") as (world, proxy):
        cluster = die_and_come_back(world, proxy)
        assert [job["state"] for job in cluster.jobs(service="step-last")] == ["Succeeded"]


def test_between_forwarding_and_the_end_of_the_job(tmp_path: Path):
    """The forward is there, and there again after the run is repeated: its service runs at least once."""
    with between(tmp_path, "PUT", "/step-last/in/a.copy") as (world, proxy):
        cluster = die_and_come_back(world, proxy)
        eventually(lambda: all(job["finished"] for job in cluster.jobs(service="step-last")), what="the last job's end")
        states = [job["state"] for job in cluster.jobs(service="step-last")]
        assert sorted(states) in (["Succeeded"], ["Cancelled", "Succeeded"], ["Succeeded", "Succeeded"])
