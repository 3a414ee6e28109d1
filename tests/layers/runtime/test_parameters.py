"""Settings and requests: what is right is typed, what is wrong is a sentence with the mend in it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from layers.runtime import InputError, read_request
from layers.runtime.parameters import as_json, read_object, read_settings


@dataclass(frozen=True)
class Settings:
    threshold: float = 0.5
    dms: tuple[float, ...] = (1.0,)
    verbose: bool = False
    mode: Literal["fast", "slow"] = "fast"
    folder: Path | None = None


@dataclass(frozen=True)
class Request:
    events: int
    seed: int = 1
    band: tuple[float, ...] = ()
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.events < 1:
            raise ValueError(f"events: {self.events} is too few; ask for 1 or more")


def request(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "r.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_settings_have_defaults():
    assert read_settings(Settings, {}) == Settings()


def test_an_empty_variable_is_the_default():
    assert read_settings(Settings, {"THRESHOLD": ""}) == Settings()


def test_settings_are_typed():
    environ = {"THRESHOLD": "0.9", "DMS": "1, 2.5", "VERBOSE": "yes", "MODE": "slow", "FOLDER": "/data"}
    assert read_settings(Settings, environ) == Settings(0.9, (1.0, 2.5), True, "slow", Path("/data"))


@pytest.mark.parametrize(
    "variable, value, wanted",
    [
        ("THRESHOLD", "high", "number"),
        ("VERBOSE", "maybe", "true or false"),
        ("MODE", "medium", "one of fast, slow"),
        ("DMS", "1,x", "list of number"),
    ],
)
def test_a_wrong_setting_names_variable_and_type(variable: str, value: str, wanted: str):
    with pytest.raises(InputError, match=f'variable {variable}: "{value}" is no {wanted}'):
        read_settings(Settings, {variable: value})


def test_settings_are_json_in_the_record():
    assert as_json(Settings(dms=(1.0, 2.0), folder=Path("/x"))) == {
        "threshold": 0.5,
        "dms": [1.0, 2.0],
        "verbose": False,
        "mode": "fast",
        "folder": "/x",
    }


def test_a_request_is_typed_and_its_inputs_are_left_to_the_runtime(tmp_path: Path):
    document = {"inputs": [], "events": 5, "band": [1, 2.5], "scale": 2}
    assert read_request(Request, request(tmp_path, document)) == Request(5, band=(1.0, 2.5), scale=2.0)


@pytest.mark.parametrize(
    "document, sentence",
    [
        ({"event": 5}, 'r.json: "event" is no key of this request; write "events"'),
        ({"events": 5, "x": 1}, "known keys are band, events, scale, seed"),
        ({}, 'r.json: the key "events" is missing; add it'),
        ({"events": "5"}, 'r.json: events: "5" is no whole number; write digits, without quotes, point or exponent'),
        ({"events": True}, "r.json: events: true is no whole number"),
        ({"events": None}, "r.json: events: null is no whole number"),
        ({"events": 1, "band": 3}, "r.json: band: 3 is no list of numbers"),
        ({"events": 1, "band": [10**400]}, "... (403 characters) is no list of numbers; write it in brackets, [...]"),
        ({"events": 0}, "r.json: events: 0 is too few; ask for 1 or more"),
        ([1], "r.json: holds a JSON list; send a JSON object"),
        (None, "r.json: holds a JSON null; send a JSON object"),
        ("[" * 100_000, "r.json: is no JSON (its lists are nested too deeply); send a JSON object"),
        ("1" * 10_000, "r.json: is no JSON (a number has too many digits); send a JSON object"),
        ("{", "r.json: is no JSON"),
        ('{"events": 1, "events": 2}', 'r.json: the key "events" is there twice; leave one of them'),
        ('{"events": 1, "inputs": [{"key": "a", "key": "b"}]}', 'r.json: the key "key" is there twice; leave one'),
        ("", "r.json: is no JSON"),
    ],
)
def test_a_wrong_request_is_one_sentence(tmp_path: Path, document: object, sentence: str):
    with pytest.raises(InputError) as caught:
        read_request(Request, request(tmp_path, document))
    assert sentence in str(caught.value)


def test_a_binary_request_is_one_sentence(tmp_path: Path):
    path = tmp_path / "r.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match=r"r\.json: is no JSON"):
        read_request(Request, path)


def test_an_object_within_a_request_is_told_by_its_place():
    assert read_object(Request, {"events": 3}, "r.json: parameters", "a band").events == 3
    with pytest.raises(InputError, match=r'^r\.json: parameters: "sede" is no key of a band; write "seed"$'):
        read_object(Request, {"events": 3, "sede": 1}, "r.json: parameters", "a band")
    with pytest.raises(InputError, match=r'^r\.json: parameters: "inputs" is no key of a band'):
        read_object(Request, {"events": 3, "inputs": []}, "r.json: parameters", "a band")
