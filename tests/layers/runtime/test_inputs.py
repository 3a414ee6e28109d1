"""Requests: which objects they name, and what is wrong with those that are wrong."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layers.runtime import InputError
from layers.runtime.inputs import Reference, Select, check, read_references, resolve


def written(tmp_path: Path, document: object) -> Path:
    path = tmp_path / "r.json"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return path


@pytest.mark.parametrize("document", [b"", b"\x00\x01", b"{", b'{"steps": 1}', b"[1]", b"HEADER_START"])
def test_other_files_are_no_request(tmp_path: Path, document: bytes):
    assert read_references(written(tmp_path, document)) is None


def test_references_keep_their_order(tmp_path: Path):
    document = {"inputs": [{"bucket": "b", "key": "2"}, {"select": {"bucket": "b", "prefix": "p", "max": 3}}]}
    assert read_references(written(tmp_path, document)) == [Reference("b", "2"), Select("b", "p", max=3)]


@pytest.mark.parametrize(
    "inputs, sentence",
    [
        ("x", '"inputs" is no list'),
        ([1], "inputs[0]: is no object"),
        ([{"bucket": "b"}], "inputs[0].key: is missing or no text"),
        (
            [{"bucket": "b", "key": "k", "sum": ""}],
            'inputs[0]: "sum" is no key here; known keys are bucket, key, sha256',
        ),
        ([{"select": {"bucket": "b", "max": 0}}], "inputs[0].select.max: 0 is no positive whole number"),
        ([{"select": {"prefix": "p"}}], "inputs[0].select.bucket: is missing"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, inputs: object, sentence: str):
    with pytest.raises(InputError) as caught:
        read_references(written(tmp_path, {"inputs": inputs}))
    assert sentence in str(caught.value)


def test_a_selection_is_sorted_and_bounded():
    keys = ["p/c.txt", "p/a.txt", "p/", "p/b.bin", "p/b.txt"]
    found = resolve([Select("b", "p/", ".txt", 2)], lambda bucket, prefix: keys)
    assert found == [Reference("b", "p/a.txt"), Reference("b", "p/b.txt")]


def test_a_selection_of_nothing_says_what_was_looked_for():
    with pytest.raises(InputError, match=r"no object matches b/p/\*\.txt"):
        resolve([Select("b", "p/", ".txt")], lambda bucket, prefix: [])


def test_changed_content_is_refused():
    with pytest.raises(InputError, match="b/k: has changed since the request named it"):
        check(Reference("b", "k", "aa"), "bb")


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused_in_a_sentence(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(b'{"inputs":' + data)
    try:
        read_references(path)
    except InputError as error:
        assert "any.json" in str(error)  # noqa: PT017 - either is right
