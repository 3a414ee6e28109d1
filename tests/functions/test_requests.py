"""What the texts say of requests is what the functions read: every key with its default, and valid examples."""

import json
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from functions.calorimeter import generate, hdf5
from functions.calorimeter import simulate as calorimeter
from functions.pulsar import synthesise, train
from layers.runtime import read_request

ROOT = Path(__file__).parents[2]
TOLD = {
    "seed": "from the request's bytes",
    "classes": "all nine",
    "detector": "none",
    "geometry": "the model's",
    "primaries": "none",
}
"""Defaults that a text tells in words."""


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def section(name: str, title: str) -> str:
    return text(name).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def told(field: Field[Any]) -> set[str]:
    value = field.default
    assert value is not MISSING
    plain = json.dumps(list(value) if isinstance(value, tuple) else value)
    numbers = re.sub(r"\.0\b", "", plain)
    grouped = f"{value:,}" if isinstance(value, int) else plain
    return {plain, f"`{plain}`", numbers, f"`{numbers}`", grouped, TOLD.get(field.name, plain)}


@pytest.mark.parametrize(
    ("function", "table"),
    [
        (calorimeter, section("calorimeter.md", "The request")),
        (generate, section("calorimeter-generate.md", "The request")),
        (synthesise, section("pulsar.md", "`pulsar-synthesise`")),
        (train, section("pulsar.md", "`pulsar-train`")),
    ],
)
def test_every_key_of_a_request_is_told_with_its_default(function: ModuleType, table: str) -> None:
    rows = {
        row[0].strip(" `"): row[-1].strip() for row in (line.split("|")[1:-1] for line in table.splitlines()) if row
    }
    keys = {field.name: field for field in fields(function.Request)}
    assert rows.keys() - {"key", "---"} == keys.keys()
    for name, field in keys.items():
        assert rows[name] in told(field), f"{name}: {rows[name]}"


def test_the_examples_are_valid(tmp_path: Path) -> None:
    assert read_request(calorimeter.Request, ROOT / "functions/calorimeter/request.json").showers == 20
    source = tmp_path / "request.json"
    for name, function in (
        ("calorimeter.md", calorimeter),
        ("calorimeter-generate.md", generate),
        ("pulsar.md", synthesise),
        ("pulsar.md", train),
    ):
        valid = 0
        for example in re.findall(r"^    (\{.*?\})\n(?=\n)", text(name), re.DOTALL | re.MULTILINE):
            known = {field.name for field in fields(function.Request)}
            if json.loads(example).keys() <= known:
                source.write_text(example)
                read_request(function.Request, source)
                valid += 1
        assert valid >= 1, f"{name}: {function.__name__}"


def test_every_dataset_of_prepared_showers_is_told() -> None:
    rows = re.findall(r"^\| `(\w+)` \| \(.*?\| (\w+) \|", section("calorimeter.md", "The HDF5 file"), re.MULTILINE)
    assert dict(rows) == {name: unit for name, (unit, _) in hdf5.DESCRIPTIONS.items()}
