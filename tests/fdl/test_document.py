"""A file is read strictly: each slip is one sentence that names the file, the field and the mend."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdl.document import read_file
from fdl.errors import FdlError
from tests.fdl.conftest import service

Write = Callable[..., Path]
HERE = Path(__file__).parents[2]


def refusal(path: Path) -> str:
    with pytest.raises(FdlError) as caught:
        read_file(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ") and "\n" not in sentence
    return sentence.removeprefix(f"{path}: ")


def test_the_twins_of_this_repository_are_read() -> None:
    for path in sorted((HERE / "fdl").glob("*.yaml")):
        document = read_file(path)
        for deployed in document.services:
            assert deployed.environment.variables["DIOSCAR_FUNCTION"].startswith(f"{path.stem}.")
            assert deployed.script == (HERE / "fdl/function.sh").read_text()
            trains = deployed.name.endswith(("-train", "-tune", "-validate"))
            assert deployed.image.endswith(f"/dioscar-{path.stem}{'-train' if trains else ''}:0.1.0")
            assert bool(deployed.interlink_node_name) == deployed.image.startswith("docker://")
            assert [entry.path for entry in deployed.input] == [f"{deployed.name}/in"]
            assert [entry.path for entry in deployed.output] == [f"{deployed.name}/out"]
            assert {entry.storage_provider for entry in deployed.input + deployed.output} == {"minio.default"}


def test_services_come_in_the_files_order_with_their_cluster_and_their_script(fdl_file: Write) -> None:
    document = read_file(fdl_file([service("one"), service("two", memory="1Gi")]))
    assert [entry.name for entry in document.services] == ["one", "two"]
    assert {entry.cluster_id for entry in document.services} == {"dioscar"}
    assert document.services[0].script == "#!/bin/sh\ntrue\n"
    assert document.field_of(document.services[1]) == "functions.oscar[1]"


def test_a_script_with_windows_line_ends_becomes_one_that_sh_runs(fdl_file: Write) -> None:
    path = fdl_file([service("one")])
    (path.parent / "function.sh").write_bytes(b"#!/bin/sh\r\ntrue\r\n")
    assert read_file(path).services[0].script == "#!/bin/sh\ntrue\n"


def test_stores_and_clusters_of_the_file_are_known_to_each_service(fdl_file: Write) -> None:
    document = read_file(
        fdl_file("""
functions:
  oscar:
    - dioscar:
        name: one
        image: alpine
        script: function.sh
        output: [{storage_provider: s3.far, path: data/out}]
        storage_providers: {s3: {far: {region: eu-west-1}}}
    - dioscar:
        name: two
        image: alpine
        script: function.sh
        output: [{storage_provider: s3.far, path: data/out}]
storage_providers: {s3: {far: {region: us-east-1}}, onedata: {lab: {space: s}}}
clusters: {other: {endpoint: "https://oscar.example"}}
""")
    )
    one, two = document.services
    assert one.storage_providers and one.storage_providers.s3["far"].region == "eu-west-1"
    assert two.storage_providers and two.storage_providers.s3["far"].region == "us-east-1"
    assert one.storage_providers.onedata["lab"].space == "s"
    assert two.clusters["other"].endpoint == "https://oscar.example"


def test_both_spellings_of_variables_may_stand_there_when_they_agree(fdl_file: Write) -> None:
    both = {"Variables": {"A": "1", "B": "2"}, "variables": {"A": "1"}}
    assert read_file(fdl_file([service("one", environment=both)])).services[0].environment.variables == {
        "A": "1",
        "B": "2",
    }
    differing = {"Variables": {"A": "1"}, "variables": {"A": "2"}}
    assert refusal(fdl_file([service("one", environment=differing)])) == (
        "functions.oscar[0].environment.variables.A: differs from its value under the other spelling; "
        "write the same in both"
    )


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"memory": "4GB"}, 'functions.oscar[0].memory: "4GB" is no Kubernetes quantity; write "4Gi"'),
        ({"memmory": "4Gi"}, 'functions.oscar[0].memmory: is no key that OSCAR knows here; write "memory"'),
        ({"Memory": "4Gi"}, 'functions.oscar[0].Memory: is no key that OSCAR knows here; write "memory"'),
        ({"cpu": 1}, 'functions.oscar[0].cpu: 1 is no text; write "1"'),
        ({"colour": "red"}, "functions.oscar[0].colour: is no key that OSCAR knows here; the known keys are name, "),
        ({"name": "Pulsar_One"}, 'functions.oscar[0].name: "Pulsar_One" is no service name'),
        ({"log_level": "CRITCAL"}, 'functions.oscar[0].log_level: "CRITCAL" is none of'),
        ({"visibility": "pubic"}, 'write "public"'),
        ({"input": [{"storage_provider": "minio", "pathh": "a"}]}, "functions.oscar[0].input[0].pathh: is no key"),
        ({"environment": {"variables": {"N": 1}}}, "functions.oscar[0].environment.variables.N: 1 is no text"),
        ({"environment": {"variables": {"N": True}}}, 'environment.variables.N: true is no text; write "true"'),
        ({"environment": {"vars": {}}}, "functions.oscar[0].environment.vars: is no key that OSCAR knows here; write"),
        ({"annotations": {"dioscar/retry": "3"}}, 'dioscar/retry is no annotation that the engine knows; write "dio'),
        ({"cluster_id": "other"}, 'functions.oscar[0].cluster_id: "other" differs from the key above'),
        ({"script": "gone.sh"}, 'functions.oscar[0].script: "gone.sh" is no file in '),
        ({"script": "/bin/true"}, 'functions.oscar[0].script: "/bin/true" is an absolute path; write one relative'),
        ({"script": ""}, "functions.oscar[0].script: is empty; fill it in"),
        ({"replicas": []}, "functions.oscar[0].replicas: is no key that OSCAR knows here"),
    ],
)
def test_a_wrong_field_is_named_with_its_mend(fdl_file: Write, fields: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(fdl_file([{**service("one"), **fields}]))


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "holds no FDL document"),
        ("- a", "holds no FDL document"),
        ("function: {}", 'function: is no key that OSCAR knows here; write "functions"'),
        ("functions:", "functions: is missing; add it"),
        ("functions: {lambda: []}", 'functions.lambda: is no key that OSCAR knows here; write "oscar"'),
        ("functions: {oscar: []}", "functions.oscar: is no list of services"),
        ("functions: {oscar: [{a: {}, b: {}}]}", "functions.oscar[0]: must hold one key"),
        ("functions: {oscar: [{dioscar: }]}", "functions.oscar[0].dioscar: holds no service"),
        ("functions: {oscar: [{dioscar: {name: a}}]}", "functions.oscar[0].image: is missing; add it"),
        ("functions: {oscar: [{dioscar: {name: a, name: b}}]}", 'line 1: the key "name" stands here twice'),
        ("a: [1\nb: 2", "line 2: is no YAML"),
        ("a: \tb:\t- c", "is no YAML"),
        ("a: \x07", "is no YAML"),
        ("a: 2026-13-45", "holds a value that YAML cannot read"),
        ("clusters: {far: {endpont: x}}\nfunctions: {oscar: []}", "clusters.far.endpont: is no key that OSCAR knows"),
        ("storage_providers: {s4: {}}\nfunctions: {oscar: []}", "storage_providers.s4: is no key that OSCAR knows"),
        ("storage_providers: {s3: {a: {region: 1}}}\nfunctions: {oscar: []}", "storage_providers.s3.a.region: 1 is no"),
    ],
)
def test_a_file_of_the_wrong_shape_says_what_is_wrong(fdl_file: Write, text: str, sentence: str) -> None:
    assert sentence in refusal(fdl_file(text))


def test_two_services_of_one_name_are_refused(fdl_file: Write) -> None:
    assert 'functions.oscar[1].name: "one" is the name of functions.oscar[0] too' in refusal(
        fdl_file([service("one"), service("one")])
    )


def test_an_empty_or_binary_script_is_refused(fdl_file: Write) -> None:
    path = fdl_file([service("one")])
    (path.parent / "function.sh").write_text("\n")
    assert 'script: "function.sh" is empty' in refusal(path)
    (path.parent / "function.sh").write_bytes(b"\xff\xfe")
    assert 'script: "function.sh" is no UTF-8 text' in refusal(path)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone.yaml") == "there is no such file; check the path"
    assert refusal(tmp_path) == "is a folder; name a file in it"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert refusal(binary) == "is no UTF-8 text; save it as UTF-8"


@given(st.text())
def test_any_text_is_a_document_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FdlError) as caught:
        read_file(path)
    assert "\n" not in str(caught.value)


def test_half_a_character_is_refused(fdl_file: Write) -> None:
    path = fdl_file([service("one", vo="VO")])
    path.write_text(path.read_text().replace("VO", "\\ud800"))
    assert refusal(path) == "functions.oscar[0]: holds half a character (a lone surrogate); write the whole one"


def test_a_value_that_holds_itself_is_refused_like_any_other(fdl_file: Write) -> None:
    path = fdl_file("functions: {oscar: [{dioscar: {name: one, image: &a [*a], script: function.sh}}]}")
    assert "found unconstructable recursive node" in refusal(path)
