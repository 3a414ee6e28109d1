"""Schedules as they are written: what a file says, and what is said of a file that is wrong."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from events.amounts import parse_bytes, parse_duration
from events.cron import Cron
from events.schedule_file import read_file
from events.schedules import Gather, ModelAge, ScheduleError, read, read_one
from fdl import document
from functions.calorimeter import train as calorimeter_train
from functions.pulsar import synthesise, train
from layers.runtime import read_request

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "events" / "schedules.yaml"


def one(**fields: Any):
    return read_one("a", {"service": "pulsar-train", **fields}, "schedules.a")


def test_a_cron_schedule():
    found = one(cron="30  2 * * MON", timezone="Europe/Madrid", payload={"seed": 1}, missed="skip", overlap=True)
    assert found.cron == Cron("30 2 * * MON", "Europe/Madrid")
    assert (found.missed, found.overlap, found.paused) == ("skip", True, False)
    assert found.body == b'{"seed": 1}'


def test_a_time_is_read_in_its_zone_or_by_its_own_offset():
    wanted = datetime(2026, 12, 1, 7, 30, tzinfo=UTC).timestamp()
    assert one(at="2026-12-01T08:30", timezone="Europe/Madrid").at == wanted
    assert one(at="2026-12-01 08:30:00+01:00").at == wanted
    assert one(at="2026-12-01T07:30").at == wanted


def test_what_is_gathered():
    found = one(gather={"bucket": "frames", "prefix": "/in/", "bytes": "10Gi", "age": "2h", "word": "_DONE"})
    assert found.gather == Gather("frames", "in/", bytes=10 << 30, age_s=7200, word="_DONE")
    assert found.inbox == ("pulsar-train", "in")
    assert one(gather={"bucket": "frames", "objects": 1}, mailbox="else/where/in/").inbox == ("else", "where/in")


def test_the_age_of_a_model():
    assert one(model={"name": "pulsar-classifier", "older": "30d"}).model == ModelAge("pulsar-classifier", 30 * 86_400)


def test_a_time_in_a_file_stays_what_was_written(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text("schedules:\n  a: {service: s, at: 2026-12-01T08:30, timezone: Europe/Madrid}\n")
    written, (schedule,) = read_file(path)
    assert written["schedules"]["a"]["at"] == "2026-12-01T08:30"
    assert schedule.at == datetime(2026, 12, 1, 7, 30, tzinfo=UTC).timestamp()


def test_the_shipped_file_is_read_and_starts_nothing():
    _, schedules = read_file(SHIPPED)
    assert {kind for kind in ("cron", "at", "gather", "model") for one in schedules if getattr(one, kind)} >= {
        "cron",
        "gather",
        "model",
    }
    assert all(schedule.paused for schedule in schedules)


def test_the_shipped_file_names_services_of_the_shipped_twins_and_what_they_read(tmp_path):
    known = {service.name for path in ROOT.glob("fdl/*.yaml") for service in document.read_file(path).services}
    requests = {
        "calorimeter-train": calorimeter_train.Request,
        "pulsar-train": train.Request,
        "pulsar-synthesise": synthesise.Request,
    }
    for schedule in read_file(SHIPPED)[1]:
        assert schedule.service in known
        (tmp_path / "request.json").write_bytes(schedule.body)
        read_request(requests[schedule.service], tmp_path / "request.json")


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"crom": "* * * * *"}, 'schedules.a.crom: is no field here; write "cron"'),
        ({}, "schedules.a: says not when; write one of cron, at, gather, model"),
        ({"cron": "* * * * *", "at": "2026-01-01"}, "cron and at stand together"),
        ({"cron": 5}, "schedules.a.cron: 5 is no cron expression; write it in quotes"),
        ({"cron": "0 0 30 2 *"}, "schedules.a.cron: "),
        ({"cron": "0 0 * * *", "timezone": "Madrid"}, "schedules.a.timezone: 'Madrid' is no time zone; write"),
        ({"cron": "0 0 * * *", "missed": "run-once"}, "schedules.a.missed: \"run-once\" is none; write run_once"),
        ({"cron": "0 0 * * *", "overlap": "no"}, 'schedules.a.overlap: "no" is neither true nor false'),
        ({"cron": "0 0 * * *", "service": "Pulsar_Train"}, 'schedules.a.service: "Pulsar_Train" is no name'),
        ({"cron": "0 0 * * *", "mailbox": "a/in"}, "schedules.a.mailbox: stands with gather and model only"),
        ({"cron": "0 0 * * *", "payload": []}, "schedules.a.payload: [] is no JSON object"),
        ({"cron": "0 0 * * *", "payload": {"Records": []}}, 'the field "Records" would be taken for an event'),
        ({"cron": "0 0 * * *", "payload": {1: 2}}, "is no JSON (a key is no text)"),
        ({"cron": "0 0 * * *", "payload": {"a": float("nan")}}, "is no JSON"),
        ({"cron": "0 0 * * *", "payload": {"a": "x" * 100_000}}, "put the data into a bucket and name it"),
        ({"at": "tomorrow"}, 'schedules.a.at: "tomorrow" is no time; write one like'),
        ({"at": "2026-03-29T02:30", "timezone": "Europe/Madrid"}, "is left out in Europe/Madrid"),
        ({"at": "2026-03-29T02:30+01:00", "timezone": "Europe/Madrid"}, "says its offset itself"),
        ({"gather": {"bucket": "frames"}}, "schedules.a.gather: says not how much is enough"),
        ({"gather": {"bucket": "frames", "object": 5}}, 'schedules.a.gather.object: is no field here; write "objects"'),
        ({"gather": {"bucket": "frames/in", "objects": 5}}, 'write what is below it as "prefix"'),
        ({"gather": {"bucket": "frames", "objects": 0}}, "schedules.a.gather.objects: 0 is no whole number above zero"),
        ({"gather": {"bucket": "frames", "bytes": "10 gigs"}}, "gather.bytes: '10 gigs' is no number of bytes"),
        ({"gather": {"bucket": "frames", "age": 60}}, "schedules.a.gather.age: 60 is no duration"),
        ({"gather": {"bucket": "frames", "objects": 9, "most": 8}}, "9 never fit into a request of 8"),
        ({"gather": {"bucket": "frames", "objects": 9, "most": 99_999}}, "more than a request may name"),
        ({"gather": {"bucket": "frames", "objects": 9}, "missed": "skip"}, "a.missed: stands with cron and at"),
        ({"gather": {"bucket": "frames", "objects": 9}, "payload": {"inputs": []}}, 'has "inputs"'),
        ({"gather": {"bucket": "pulsar-train", "objects": 9}}, "would gather the requests that it writes"),
        ({"gather": {"bucket": "frames", "word": "a/b"}}, "is no name of an object in a folder"),
        ({"model": {"name": "pulsar"}}, "schedules.a.model.older: is missing; add it"),
        ({"gather": None}, "schedules.a.gather: holds no fields"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_field_and_mend(fields, sentence):
    with pytest.raises(ScheduleError) as caught:
        one(**fields)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "holds no schedules"),
        ("schedules: []", "holds no schedules"),
        ("schedule: {}", "holds no schedules"),
        ("schedules: {}\nmore: 1", "more: is no field here"),
        ("schedules:\n  a: {service: s, cron: '* * * * *'}\n  a: {}", 'line 3: the key "a" stands here twice'),
        ("schedules:\n  A_b: {service: s, cron: '* * * * *'}", 'schedules.A_b: "A_b" is no name of a schedule'),
        ("schedules:\n  a: [", "is no YAML"),
        ("schedules:\n  a:\n", "schedules.a: holds no fields"),
        ("\x00", "is no YAML"),
        ("[" * 3000, "is nested too deeply"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path, text, sentence):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ScheduleError) as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert sentence in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "s.yaml").write_bytes(b"\xff\xfe\x00")
    for path, sentence in ((tmp_path / "no", "there is no such file"), (tmp_path, "cannot be read"), (tmp_path / "s.yaml", "is no UTF-8")):  # fmt: skip # noqa: E501
        with pytest.raises(ScheduleError, match=sentence):
            read_file(path)


def test_a_name_has_an_end_that_kubernetes_bears():
    with pytest.raises(ScheduleError, match="is no name of a schedule"):
        read({"schedules": {"a" * 41: {"service": "s", "cron": "* * * * *"}}})


@pytest.mark.parametrize("text", ["", "5", "0s", "-5s", "5 s", "5y", 5, None, "٣d", "1.5h"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "0", 0, -1, True, "5X", "1.5Gi", None, 1.5])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match="is no number of bytes"):
        parse_bytes(text)
