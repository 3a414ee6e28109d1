"""`replay`: what to run again is named in one way, and inputs without outputs are found on any OSCAR."""

import json
import threading
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from infra.cli.reconcile import Listed, without_output
from tests.cluster import Cluster, eventually
from tests.infra.cli.conftest import Dioscar

Fdl = Callable[..., Path]


def listed(*entries: tuple[str, int]) -> list[Listed]:
    return [Listed(key, 1, datetime.fromtimestamp(moment, UTC)) for key, moment in entries]


def test_an_input_is_compared_with_the_newest_record_of_its_own() -> None:
    inputs = listed(("in/a", 10), ("in/b", 10), ("in/c/d", 10), ("in/c/", 1), ("in/e", 10), ("in/f", 10))
    folder = "out/_runs/"
    records = listed(
        (f"{folder}a/1.json", 11),
        (f"{folder}b/1.json", 5),
        (f"{folder}b/2.json", 9),
        (f"{folder}c/d/1.json", 10),
        (f"{folder}f/x/1.json", 20),
        (f"{folder}e/2.json", 30),
        (f"{folder}e/1.json", 5),
    )
    assert [found.key for found in without_output(inputs, records, folder)] == ["in/b", "in/f"]


def lose(cluster: Cluster, bucket: str, *keys: str) -> None:
    """Put objects of which no event comes: the bucket's notifications are taken away first."""
    import boto3

    facts = cluster.facts
    s3 = boto3.client(
        "s3",
        endpoint_url=facts["s3"],
        aws_access_key_id=facts["minio_access_key"],
        aws_secret_access_key=facts["minio_secret_key"],
        region_name="us-east-1",
    )
    kept = s3.get_bucket_notification_configuration(Bucket=bucket)
    kept.pop("ResponseMetadata")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode(), Metadata={"dioscar-hops": "7"})
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=kept)
    s3.close()


@pytest.fixture
def service(on: Dioscar, fdl_file: Fdl, request: pytest.FixtureRequest) -> str:
    """A service of the test's own that copies its input."""
    name = f"again-{zlib.crc32(request.node.name.encode())}"
    assert on("apply", fdl_file(name)).status == 0
    return name


def test_lost_inputs_are_shown_and_run_when_asked(on: Dioscar, cluster: Cluster, service: str) -> None:
    cluster.put(service, "in/done", b"x")
    cluster.ended(service)
    lose(cluster, service, "in/lost", "in/deep/er", "in/done.not")
    said = on("replay", "--without-output", "--service", service)
    assert [line.split()[1] for line in said.out.splitlines()[1:]] == [
        f"{service}/in/{name}" for name in ("deep/er", "done.not", "lost")
    ]
    assert "the same with --yes" in said.err
    assert len(cluster.jobs(service=service)) == 1
    assert on("replay", "--without-output", "--service", service, "--older", "1d").out.startswith("Every input")
    assert on("replay", "--without-output", "--service", service, "--yes").out.endswith("3 jobs put into the queue\n")
    assert {job["state"] for job in cluster.ended(service, 4)} == {"Succeeded"}
    assert on("replay", "--without-output", "--service", service).out == "Every input has left a record.\n"
    lose(cluster, service, "in/lost")  # the same name again: its record is of an earlier one
    found = on("replay", "--without-output", "--service", service, "--json").json
    assert [(one["key"], one["job"]) for one in found["inputs"]] == [("in/lost", "Succeeded")]


def test_what_still_runs_is_not_lost(on: Dioscar, cluster: Cluster, fdl_file: Fdl, tmp_path: Path) -> None:
    name = "again-running"
    assert on("apply", fdl_file(name, "fail")).status == 0
    cluster.put(name, "in/a", b"hang")
    (job,) = eventually(lambda: cluster.jobs(service=name, state="Running"))
    assert on("replay", "--without-output", "--service", name).out == "Every input has left a record.\n"
    assert on("cancel", job["id"]).status == 0
    eventually(lambda: cluster.job(job["id"])["state"] == "Cancelled")
    found = on("replay", "--without-output", "--service", name, "--json").json
    assert [(one["key"], one["job"]) for one in found["inputs"]] == [("in/a", "Cancelled")]


def test_a_service_that_keeps_no_records_is_named(on: Dioscar, cluster: Cluster) -> None:
    cluster.deploy("again-script", script="true")
    cluster.put("again-script", "in/a", b"x")
    said = on("replay", "--without-output", "--service", "again-script")
    assert said.out == "Every input has left a record.\n"
    assert "Not compared, for they are no functions that keep records: again-script" in said.err


def test_a_service_that_is_not_there_is_said(on: Dioscar) -> None:
    for arguments in (["--service", "no-such"], ["--without-output", "--service", "no-such"]):
        said = on("replay", *arguments)
        assert said.status == 66
        assert "there is no service no-such" in said.err


def test_dead_jobs_of_a_time_run_again(on: Dioscar, cluster: Cluster, fdl_file: Fdl) -> None:
    path = fdl_file("again-time", "fail")
    path.write_text(path.read_text() + '        annotations: {dioscar/retries: "0"}\n')
    assert on("apply", path).status == 0
    cluster.put("again-time", "in/a", b"error")
    cluster.ended("again-time")
    assert on("replay", "--service", "again-time", "--until", "1h").out.startswith("0 jobs")
    assert on("replay", "--service", "again-time", "--since", "2999-01-01T00:00").out.startswith("0 jobs")
    assert on("replay", "--service", "again-time", "--since", "1h").out.startswith("1 job ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "yesterday", "--service", "x"],
        ["--without-output", "--state", "Dead"],
        ["--without-output", "job"],
        ["--without-output", "--missing"],
        ["--missing", "--yes"],
        ["--objects", "b/in", "--since", "1h"],
    ],
)
def test_what_does_not_go_together_is_misspelt(on: Dioscar, arguments: list[str]) -> None:
    assert on("replay", *arguments).status == 2


class Plain:
    """The embedded cluster behind a door that lets through what every OSCAR has, and nothing else."""

    def __init__(self, api: str) -> None:
        plain = self
        self.asked: list[tuple[str, str]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                plain.asked.append((self.command, self.path))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.path.startswith("/dioscar/"):
                    self.send_error(404)
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                reply = requests.request(self.command, api + self.path, headers=headers, data=body, timeout=60)
                self.send_response(reply.status_code)
                self.send_header("Content-Length", str(len(reply.content)))
                self.end_headers()
                self.wfile.write(reply.content)

            def do_POST(self) -> None:
                self.do_GET()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def plain(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plain]:
    """A plain OSCAR, named by OSCAR_ENDPOINT."""
    found = Plain(cluster.facts["api"])
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OSCAR_ENDPOINT", f"http://127.0.0.1:{found.server.server_port}")
    monkeypatch.setenv("OSCAR_USERNAME", cluster.facts["oscar_username"])
    monkeypatch.setenv("OSCAR_PASSWORD", cluster.facts["oscar_password"])
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def test_a_plain_oscar_gets_the_events_that_it_has_lost(
    dioscar: Dioscar, cluster: Cluster, service: str, plain: Plain
) -> None:
    cluster.put(service, "in/done", b"x")
    cluster.ended(service)
    lose(cluster, service, "in/lost é+ö.txt", "in/b")
    found = dioscar("replay", "--without-output", "--service", service, "--json").json
    assert sorted(one["key"] for one in found["inputs"]) == ["in/b", "in/lost é+ö.txt"]
    assert len(cluster.jobs(service=service)) == 1
    assert dioscar("replay", "--without-output", "--service", service, "--yes", "--json").json["replayed"] == 2
    assert plain.asked.count(("POST", f"/job/{service}")) == 2
    assert {job["state"] for job in cluster.ended(service, 3)} == {"Succeeded"}
    assert cluster.read(service, "out/lost é+ö.txt.copy") == "in/lost é+ö.txt".encode()
    assert dioscar("replay", "--without-output", "--service", service).out == "Every input has left a record.\n"


def test_a_plain_oscar_gets_the_events_of_a_prefix(
    dioscar: Dioscar, cluster: Cluster, service: str, plain: Plain
) -> None:
    for key in ("in/x/1", "in/x/2", "in/y/1"):
        cluster.put(service, key, b"x")
    cluster.ended(service, 3)
    assert dioscar("replay", "--objects", f"{service}/in/x/").out == "2 jobs put into the queue\n"
    assert {job["state"] for job in cluster.ended(service, 5)} == {"Succeeded"}


def test_what_a_plain_oscar_does_not_keep_is_said(dioscar: Dioscar, service: str, plain: Plain) -> None:
    for arguments in (["some-job"], ["--service", service], ["--missing"]):
        said = dioscar("replay", *arguments)
        assert said.status == 1
        assert "keeps nothing of jobs that have failed" in said.err
    assert dioscar("replay", "--without-output", "--service", "no-such").status == 66


def test_an_event_tells_what_the_store_knows_of_the_object(
    dioscar: Dioscar, cluster: Cluster, plain: Plain, on: Dioscar
) -> None:
    variables = {"DIOSCAR_FUNCTION": "contract.copy"}
    script = 'printf %s "$EVENT" > "$TMP_OUTPUT_DIR/event.json"'
    cluster.deploy("again-event", script=script, variables=variables)
    lose(cluster, "again-event", "in/a b")
    assert dioscar("replay", "--objects", "again-event/in/").out == "1 job put into the queue\n"
    cluster.ended("again-event")
    record = json.loads(cluster.read("again-event", "out/event.json"))["Records"][0]
    assert record["eventSource"] == "minio:s3"
    assert record["requestParameters"]["principalId"] == cluster.facts["minio_access_key"]
    told = record["s3"]["object"]
    assert (told["key"], told["size"]) == ("in%2Fa+b", len("in/a b"))
    assert {name.lower(): value for name, value in told["userMetadata"].items()} == {"x-amz-meta-dioscar-hops": "7"}
