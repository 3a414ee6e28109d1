"""What a job's pod uploads names the job, and a store that is away is waited for."""

import http.server
import threading
from pathlib import Path
from typing import Any

import pytest

from layers.objects import client
from layers.objects.errors import StoreUnavailable
from layers.runtime import storage
from layers.runtime.podstore import PodStore, is_pod

DOCUMENT = {"storage_providers": {"minio": {"default": {"endpoint": "http://127.0.0.1:1", "region": "us-east-1"}}}}


def credentials(folder: Path) -> Path:
    mount = folder / "minio.default"
    mount.mkdir()
    (mount / "accessKey").write_text("a")
    (mount / "secretKey").write_text("b")
    return folder


def test_only_a_job_that_stages_by_itself_is_a_pod() -> None:
    assert is_pod({"JOB_UUID": "x"})
    assert not is_pod({"JOB_UUID": "x", "DIOSCAR_ENGINE": "embedded"})
    assert not is_pod({})


def test_a_pods_client_is_patient_and_knows_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = credentials(tmp_path)
    monkeypatch.delenv("DIOSCAR_ENGINE", raising=False)
    monkeypatch.setenv("JOB_UUID", "trains-1")
    found = storage.client(storage.config_of(DOCUMENT), secrets)
    assert isinstance(found, PodStore)
    assert found.job == "trains-1"
    monkeypatch.delenv("JOB_UUID")
    assert not isinstance(storage.client(storage.config_of(DOCUMENT), secrets), PodStore)


def test_what_it_puts_names_the_job(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    class Store(http.server.BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            return

    server = http.server.HTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = PodStore(f"http://127.0.0.1:{server.server_port}", "a", "b")
    store.job = "trains-1"
    source = tmp_path / "f"
    source.write_bytes(b"x")
    store.put("b", "k", source, metadata={"dioscar-hops": "1"})
    store.close()
    server.shutdown()
    server.server_close()
    (headers,) = seen
    assert headers["x-amz-meta-dioscar-job"] == "trains-1"
    assert headers["x-amz-meta-dioscar-hops"] == "1"
    assert "x-amz-meta-dioscar-job" in headers["authorization"]


def test_a_store_that_is_away_is_waited_for_and_not_for_ever(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAUSES_S", ())
    waited: list[float] = []
    store = PodStore("http://127.0.0.1:1", "a", "b")
    store.sleep = waited.append
    with pytest.raises(StoreUnavailable):
        store.head("b", "k")
    assert sum(waited) >= store.patience_s
    assert capsys.readouterr().out.count("waiting for the object store, for 15 min at most") == 1
