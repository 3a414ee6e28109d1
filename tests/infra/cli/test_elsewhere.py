"""A cluster that has OSCAR's routes and no others is served as far as they go."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.infra.cli.conftest import Dioscar

JOB = "pulsar-00000000-0000-4000-8000-000000000000"
ANSWERS: dict[str, Any] = {
    "/system/info": {"version": "v4.1.2"},
    "/system/services": [{"name": "pulsar"}],
    "/system/logs/pulsar": {
        "jobs": {
            JOB: {
                "status": "Succeeded",
                "creation_time": "2026-01-01T00:00:00Z",
                "start_time": "2026-01-01T00:00:01Z",
                "finish_time": "2026-01-01T00:00:03Z",
            },
            "pulsar-older": {"status": "Suspended", "creation_time": "2025-01-01T00:00:00Z"},
        }
    },
    f"/system/logs/pulsar/{JOB}": "what the function printed\n",
}


class _Handler(BaseHTTPRequestHandler):
    """Answers as OSCAR's source says that it does; a real one needs Kubernetes, which is not here."""

    def do_GET(self) -> None:
        answer = ANSWERS.get(self.path.partition("?")[0])
        body = answer if isinstance(answer, str) else "" if answer is None else json.dumps(answer)
        self.send_response(404 if answer is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def elsewhere(dioscar: Dioscar, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dioscar]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OSCAR_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("OSCAR_USERNAME", "oscar")
    monkeypatch.setenv("OSCAR_PASSWORD", "x")
    yield dioscar
    server.shutdown()
    thread.join()
    server.server_close()


def test_status_says_which_oscar_it_is(elsewhere: Dioscar) -> None:
    assert elsewhere("status").out.endswith(": OSCAR v4.1.2, 1 services\n")


def test_jobs_are_listed_by_service_newest_first(elsewhere: Dioscar) -> None:
    found = elsewhere("jobs", "--service", "pulsar", "--json").json
    assert [(job["id"], job["state"]) for job in found] == [(JOB, "Succeeded"), ("pulsar-older", "Suspended")]
    assert found[0]["finished"] - found[0]["started"] == 2
    assert "pulsar-00000000  Succeeded" in elsewhere("jobs", "--service", "pulsar").out
    said = elsewhere("jobs")
    assert said.status == 2
    assert "add --service NAME" in said.err


def test_a_log_is_found_by_the_jobs_name(elsewhere: Dioscar) -> None:
    assert elsewhere("logs", JOB).out == "what the function printed\n"
    assert elsewhere("logs", "pulsar-nothing").status == 66
