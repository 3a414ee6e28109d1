"""`schedule`: apply, list, run, pause, resume, delete, render."""

import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from infra.cli.jobs import short
from tests.cluster import TWIN, Cluster
from tests.infra.cli.conftest import Dioscar

FILE = """
schedules:
  cli-nightly:
    service: cli-scheduled
    cron: "30 2 * * *"
    timezone: Europe/Madrid
    payload: {seed: 1}
  cli-gathered:
    service: cli-scheduled
    gather: {bucket: cli-scheduled, prefix: frames/, objects: 3}
"""


@pytest.fixture
def file(tmp_path: Path, cluster: Cluster) -> Path:
    cluster.deploy("cli-scheduled", script='cat "$INPUT_FILE_PATH"')
    path = tmp_path / "schedules.yaml"
    path.write_text(FILE)
    return path


def test_a_file_is_applied_shown_and_deleted(on: Dioscar, file: Path, cluster: Cluster):
    assert on("schedule", "apply", file).out == "cli-nightly created\ncli-gathered created\n"
    assert on("schedule", "apply", file).out == "cli-nightly unchanged\ncli-gathered unchanged\n"
    cluster.put("cli-scheduled", "frames/a", b"x" * 2048)
    lines = {line.split()[0]: line for line in on("schedule", "list").out.splitlines()}
    assert "30 2 * * * Europe/Madrid" in lines["cli-nightly"]
    assert " in " in lines["cli-nightly"].replace(" in Europe", "")
    assert "3 objects in cli-scheduled/frames/*" in lines["cli-gathered"]
    shown = on("schedule", "list", "cli-nightly")
    assert shown.out.startswith("cli-nightly\n  service    cli-scheduled\n  when       30 2 * * * Europe/Madrid\n")
    listed = {one["name"]: one for one in on("schedule", "list", "--json").json}
    assert listed["cli-nightly"]["schedule"]["payload"] == {"seed": 1}
    assert on("schedule", "list", "cli-nightly", "--json").json == listed["cli-nightly"]
    assert on("schedule", "delete", "cli-nightly", "cli-gathered").out == "cli-nightly deleted\ncli-gathered deleted\n"
    assert on("schedule", "list", "cli-nightly").status == 66


def test_a_person_runs_pauses_and_resumes(on: Dioscar, file: Path, cluster: Cluster):
    file.write_text(FILE.replace("frames/", "nothing/"))
    on("schedule", "apply", file)
    assert on("schedule", "pause", "cli-nightly").out == "cli-nightly paused\n"
    (job,) = on("schedule", "run", "cli-nightly", "--json").json["jobs"]
    assert on("logs", "-f", job).out == '{"seed": 1}'
    assert on("schedule", "list", "cli-nightly", "--json").json["job_state"] == "Succeeded"
    row = next(line for line in on("schedule", "list").out.splitlines() if line.startswith("cli-nightly"))
    assert re.search(rf"\S+ m?s ago +{short({'id': job})} +Succeeded", row)
    assert "Pending  by the schedule cli-nightly" in on("jobs", "show", job).out
    assert on("schedule", "resume", "cli-nightly").out.startswith("cli-nightly resumed, next in ")
    refused = on("schedule", "run", "cli-gathered")
    assert (refused.status, refused.err) == (1, "dioscar: not run: nothing new has arrived for it\n")
    on("schedule", "delete", "cli-nightly", "cli-gathered")


def test_the_shipped_file_is_applied_without_a_file_and_starts_nothing(on: Dioscar, cluster: Cluster):
    said = on("schedule", "apply")
    assert said.status == 0
    assert all(line.endswith(" created, paused") for line in said.out.splitlines())
    names = [one["name"] for one in on("schedule", "list", "--json").json if one["state"] == "paused"]
    assert "pulsar-nightly-check" in names
    assert cluster.jobs(service="pulsar-synthesise") == []
    on("schedule", "delete", *names)


def test_names_that_are_not_there_are_told_of_when_a_file_is_applied(
    on: Dioscar, file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(TWIN))
    file.write_text("""
schedules:
  cli-slip-a: {service: cli-schedulde, cron: "0 0 1 1 *"}
  cli-slip-b: {service: cli-scheduled, gather: {bucket: cli-schedule, objects: 3}}
  cli-slip-c: {service: cli-scheduled, model: {name: tiny-modle, older: 90d}}
  cli-right: {service: cli-scheduled, model: {name: tiny-model, older: 90d}}
""")
    said = on("schedule", "apply", file)
    assert said.status == 0
    until = "yet; it runs from when that is deployed"
    assert said.err.splitlines() == [
        f"dioscar: cli-slip-a: there is no service cli-schedulde {until}; did you mean cli-scheduled?",
        "dioscar: cli-slip-b: there is no bucket cli-schedule now; did you mean cli-scheduled?",
        "dioscar: cli-slip-c: there is no model tiny-modle now; did you mean tiny-model?",
    ]
    assert "due" not in on("schedule", "resume", "cli-right").out
    on("schedule", "run", "cli-right")
    assert re.search(r"request +cli-scheduled/in/cli-right-", on("schedule", "list", "cli-right").out)
    on("schedule", "delete", "cli-slip-a", "cli-slip-b", "cli-slip-c", "cli-right")


def test_a_time_that_is_past_is_told_of_when_manifests_are_made(dioscar: Dioscar, tmp_path: Path):
    path = tmp_path / "past.yaml"
    path.write_text("""
schedules:
  gone: {service: s, at: "2020-01-01T00:00"}
  skipped: {service: s, at: "2020-01-01T00:00", missed: skip}
  comes: {service: s, at: "2900-01-01T00:00"}
""")
    assert dioscar("schedule", "render", path, "--image", "mine:1").err.splitlines() == [
        "note: gone: its time is past; its Job will run as soon as it is applied",
        "note: skipped: its time is past; its Job will do nothing",
    ]


@pytest.mark.parametrize(
    "arguments, status, sentence",
    [
        (("run", "no-such"), 66, 'there is no schedule "no-such"'),
        (("pause", "no-such"), 66, 'there is no schedule "no-such"'),
        (("delete", "no-such"), 66, 'there is no schedule "no-such"'),
        (("apply", "{file}"), 65, 'schedules.a.crom: is no field here; write "cron"'),
        (("render", "{file}"), 65, 'schedules.a.crom: is no field here; write "cron"'),
        (("apply", "no-such.yaml"), 2, "no-such.yaml"),
        (("pause",), 2, "NAME"),
    ],
)
def test_what_is_wrong_is_said(on: Dioscar, tmp_path: Path, arguments: tuple[str, ...], status: int, sentence: str):
    bad = tmp_path / "bad.yaml"
    bad.write_text("schedules: {a: {service: s, crom: '* * * * *'}}")
    said = on("schedule", *(word.format(file=bad) for word in arguments))
    assert said.status == status
    assert sentence in said.err


def test_a_name_in_two_files_is_said(on: Dioscar, file: Path, tmp_path: Path):
    other = tmp_path / "other.yaml"
    other.write_text(file.read_text())
    said = on("schedule", "apply", file, other)
    assert (said.status, "cli-nightly: stands in another file too" in said.err) == (65, True)


def test_manifests_are_rendered_without_any_cluster(dioscar: Dioscar, tmp_path: Path):
    said = dioscar("schedule", "render", "--namespace", "telescope", "--image", "mine:1")
    documents = list(yaml.safe_load_all(said.out))
    assert {document["metadata"]["namespace"] for document in documents} == {"telescope"}
    assert {document["kind"] for document in documents} == {"ConfigMap", "CronJob"}
    assert "image: mine:1" in said.out
    written = dioscar("schedule", "render", "--namespace", "telescope", "--image", "mine:1", "-o", tmp_path / "k.yaml")
    assert (written.out, (tmp_path / "k.yaml").read_text()) == ("", said.out)


def test_a_cluster_without_schedules_says_what_to_do(dioscar: Dioscar, monkeypatch: pytest.MonkeyPatch):
    class Oscar(BaseHTTPRequestHandler):
        """A cluster that has OSCAR's routes only."""

        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"404 page not found")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Oscar)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OSCAR_USERNAME", "oscar")
    monkeypatch.setenv("OSCAR_PASSWORD", "x")
    try:
        said = dioscar("schedule", "list", "--cluster", f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
    assert said.status == 2
    assert "has no schedules of its own; dioscar schedule render FILE makes manifests for it" in said.err
