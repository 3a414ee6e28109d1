"""Whatever stands in a file, or comes as a body: a document, or one sentence that names the file; and soon."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fdl.document import Document, read_file
from fdl.errors import FdlError
from fdl.model import Service, service_from_json
from fdl.parts import StorageIO
from tests.fdl.conftest import service

HERE = Path(__file__).parents[2]
TWINS = [path.read_text() for path in sorted((HERE / "fdl").glob("*.yaml"))]
SOON_S = 5.0

words = st.sampled_from(
    ["", "a", "4Gi", "1e999999999", "9" * 5000, "-1", "0", "é", "\x00", "\ud800", "../../dev/zero", "a" * 5000, "minio",
     "minio.default", "name/in", "true", "dioscar/timeout", "dioscar/executor", "warm", "process", "NaN", "1/0", "\n"]
)  # fmt: skip
names = st.sampled_from(
    [*Service.model_fields, *StorageIO.model_fields, "Variables", "variables", "secrets", "default"]
)
scalars = words | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names | words, inner, max_size=4),
    max_leaves=12,
)
fields = st.dictionaries(names, values, max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fuzz")
    (made / "function.sh").write_text("true\n")
    return made


def is_document_or_sentence(folder: Path, text: str | bytes) -> None:
    path = folder / "any.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    began = time.process_time()
    sentence = ""
    try:
        assert isinstance(read_file(path), Document)
    except FdlError as error:
        sentence = str(error)
    assert not sentence or (sentence.startswith(f"{path}: ") and "\n" not in sentence)
    assert time.process_time() - began < SOON_S


def in_a_file(entry: Any) -> str:
    return json.dumps({"functions": {"oscar": [{"dioscar": entry}]}})


@given(fields)
def test_any_fields_of_a_service(folder: Path, changed: dict[str, Any]) -> None:
    is_document_or_sentence(folder, in_a_file({**service("one"), **changed}))


@given(values)
def test_any_value_in_the_place_of_a_file(folder: Path, value: Any) -> None:
    is_document_or_sentence(folder, json.dumps(value))


@given(values, st.sampled_from(["functions", "storage_providers", "clusters", "oscar", "dioscar"]))
def test_any_value_below_a_known_key(folder: Path, value: Any, key: str) -> None:
    document: dict[str, Any] = json.loads(in_a_file(service("one")))
    if key == "oscar":
        document["functions"]["oscar"] = value
    elif key == "dioscar":
        document["functions"]["oscar"][0]["dioscar"] = value
    else:
        document[key] = value
    is_document_or_sentence(folder, json.dumps(document))


@given(values | st.builds(lambda changed: {**service("one"), **changed}, fields))
def test_any_body_of_a_rest_call(value: Any) -> None:
    sentence = ""
    try:
        assert isinstance(service_from_json(value), Service)
    except FdlError as error:
        sentence = str(error)
    assert "\n" not in sentence


@given(st.sampled_from(TWINS), st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_a_twin_that_was_edited_badly(folder: Path, text: str, data: st.DataObject) -> None:
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 40)))
        put = data.draw(
            st.sampled_from(["", " ", "\n", "\t", ":", "- ", "*a", "&a ", "[", "{", "}", "'", "!", "%", "|", ">"])
        )
        text = text[:start] + put + text[end:]
    is_document_or_sentence(folder, text)


@given(st.binary(max_size=200))
def test_any_bytes(folder: Path, data: bytes) -> None:
    is_document_or_sentence(folder, data)


def laughs(levels: int) -> str:
    """A few hundred bytes that stand for ten to the power of `levels` values."""
    text = "&a0 [x, x, x, x, x, x, x, x, x, x]"
    for level in range(1, levels):
        text = f"&a{level} [{text}, " + ", ".join([f"*a{level - 1}"] * 9) + "]"
    return text


@pytest.mark.parametrize("levels", [6, 9, 100])
@pytest.mark.parametrize("place", ["vo: {}", "deployment: {{a: {}}}", "annotations: {}", "options: {}"])
def test_a_bomb_of_aliases_is_refused_at_once(folder: Path, levels: int, place: str) -> None:
    path = folder / "bomb.yaml"
    entry = "name: one, image: i, script: function.sh, " + place.format(laughs(levels))
    path.write_text(f"functions: {{oscar: [{{dioscar: {{{entry}}}}}]}}")
    began = time.process_time()
    with pytest.raises(FdlError, match="holds more than 100000 values, aliases counted in full"):
        read_file(path)
    assert time.process_time() - began < 1


def test_a_few_aliases_are_welcome(folder: Path) -> None:
    path = folder / "aliases.yaml"
    path.write_text(
        "functions: {oscar: [{dioscar: {name: one, image: &i alpine, script: &s function.sh}},"
        " {dioscar: {name: two, image: *i, script: *s}}]}"
    )
    assert [found.image for found in read_file(path).services] == ["alpine", "alpine"]


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "functions: " + "[" * 5000 + "]" * 5000, "{a: " * 3000, "- " * 5000 + "a"]
)
def test_what_is_nested_without_end_is_one_sentence(folder: Path, text: str) -> None:
    path = folder / "deep.yaml"
    path.write_text(text)
    with pytest.raises(FdlError, match="is nested too deeply for a declaration"):
        read_file(path)


def test_a_body_nested_without_end_is_one_sentence() -> None:
    value: Any = "x"
    for _ in range(5000):
        value = [value]
    with pytest.raises(FdlError, match="holds a value within a value without end"):
        service_from_json({**service("one"), "deployment": {"a": value}})


def test_a_file_that_is_no_declaration_is_not_read_to_its_end(folder: Path) -> None:
    path = folder / "large.yaml"
    path.write_text("#" * (1 << 20) + "\n")
    for wrong in (path, Path("/dev/zero")):
        with pytest.raises(FdlError, match="is larger than 1 MiB"):
            read_file(wrong)


@pytest.mark.parametrize(
    "script, what",
    [("../../../../dev/zero", "is no file in"), ("a" * 5000, "cannot be read"), ("a\0b", "is no file in")],
)
def test_a_script_that_is_no_script_is_named(folder: Path, script: str, what: str) -> None:
    path = folder / "script.yaml"
    path.write_text(in_a_file({**service("one"), "script": script}))
    with pytest.raises(FdlError, match=rf"functions.oscar\[0\].script: .* {what}"):
        read_file(path)


@pytest.mark.parametrize("value", ["1e99999999999999999999", "9" * 6000 + "Gi", "1e999", "99999999999999999999E"])
def test_a_quantity_beyond_64_bits_is_refused(folder: Path, value: str) -> None:
    path = folder / "quantity.yaml"
    path.write_text(yaml.safe_dump(json.loads(in_a_file({**service("one"), "memory": value}))))
    with pytest.raises(FdlError, match=r'memory: .* is beyond every Kubernetes quantity; write "1Gi"'):
        read_file(path)


def test_a_time_limit_without_end_is_refused(folder: Path) -> None:
    path = folder / "timeout.yaml"
    path.write_text(in_a_file({**service("one"), "annotations": {"dioscar/timeout": "9" * 5000}}))
    with pytest.raises(FdlError, match=r"dioscar/timeout: .* is no whole number from 1 up"):
        read_file(path)
