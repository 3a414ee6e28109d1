"""Traces: one for each raw file, through its whole chain, as an OpenTelemetry collector receives them."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from infra.local.tracing import TracingUnavailable, from_environment
from tests.cluster import Cluster, running_cluster


class Collector(ThreadingHTTPServer):
    """Receives spans over OTLP/HTTP and keeps them."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = ExportTraceServiceRequest()
        request.ParseFromString(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
        self.server.spans += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def traced(collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_address[1]}")
    with running_cluster(tmp_path / "data") as cluster:
        yield cluster


def test_a_chain_is_one_trace_that_begins_with_the_upload(collector: Collector, traced: Cluster):
    chain = {"DIOSCAR_FUNCTION": "contract.copy", "FORWARD": "*.copy -> trace-second/in"}
    traced.deploy("trace-second", variables={"DIOSCAR_FUNCTION": "contract.copy"})
    traced.deploy("trace-first", variables=chain)
    traced.put("trace-first", "in/raw.fil", b"x")
    traced.ended("trace-second")
    traced.put("trace-first", "in/other.fil", b"y")
    traced.ended("trace-second", 2)
    traced.stop()
    traces: dict[bytes, list[Any]] = {}
    for span in collector.spans:
        traces.setdefault(span.trace_id, []).append(span)
    assert len(traces) == 2
    for spans in traces.values():
        by_name = {span.name: span for span in spans}
        assert set(by_name) == {"upload", "trace-first", "trace-second"}
        assert by_name["upload"].parent_span_id == b""
        assert by_name["trace-first"].parent_span_id == by_name["upload"].span_id
        assert by_name["trace-second"].parent_span_id == by_name["trace-first"].span_id
        assert by_name["upload"].end_time_unix_nano <= by_name["trace-first"].start_time_unix_nano


def test_a_failed_attempt_is_an_error_in_the_trace(collector: Collector, traced: Cluster):
    traced.deploy("trace-fail", script="echo why; exit 3", annotations={"dioscar/retries": "0"})
    traced.put("trace-fail", "in/a", b"x")
    traced.ended("trace-fail")
    traced.stop()
    (span,) = [span for span in collector.spans if span.name == "trace-fail"]
    assert span.status.code == 2
    assert span.status.message == "the script ended with status 3: why"
    assert {a.key: a.value.int_value for a in span.attributes}["dioscar.exit_code"] == 3


def test_two_services_on_one_object_share_its_upload(collector: Collector, traced: Cluster):
    for name in ("trace-both-a", "trace-both-b"):
        both = [{"storage_provider": "minio.default", "path": "trace-both/in"}]
        traced.deploy(name, script="true", input=both)
    traced.put("trace-both", "in/a", b"x")
    for name in ("trace-both-a", "trace-both-b"):
        traced.ended(name)
    traced.stop()
    assert len({span.trace_id for span in collector.spans}) == 1
    assert sorted(span.name for span in collector.spans) == ["trace-both-a", "trace-both-b", "upload"]


def test_a_collector_that_is_not_there_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with running_cluster(tmp_path / "data") as cluster:
        cluster.deploy("trace-none", script="true")
        cluster.put("trace-none", "in/a", b"x")
        assert cluster.ended("trace-none")[0]["state"] == "Succeeded"
        assert cluster.stop() == 0


def test_without_an_endpoint_there_is_no_tracing():
    assert from_environment({}, "x") is None


def test_a_missing_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracingUnavailable, match=r"run \./dioscar install trace, or unset it"):
        from_environment({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, "x")
