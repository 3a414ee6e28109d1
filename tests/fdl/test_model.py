"""A service by REST: as lenient as OSCAR's decoder, with OSCAR's defaults, emitted in OSCAR's order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdl.errors import FdlError
from fdl.model import dumps, service_from_json

LEAST = {"name": "pulsar", "image": "alpine", "script": "true"}


def refusal(**fields: Any) -> str:
    with pytest.raises(FdlError) as caught:
        service_from_json({**LEAST, **fields})
    return str(caught.value)


def test_a_service_of_three_fields_is_emitted_with_every_default_in_oscars_order() -> None:
    assert dumps(service_from_json(LEAST).to_json()) == (
        '{"name":"pulsar","cluster_id":"","memory":"256Mi","cpu":"0.2","total_memory":"","total_cpu":"",'
        '"ephemeral_storage_request":"","enable_gpu":false,"enable_sgx":false,"image_prefetch":false,'
        '"synchronous":{"min_scale":0,"max_scale":0},"log_level":"INFO","image":"alpine","alpine":false,"token":"",'
        '"file_stage_in":false,"input":[],"output":[],"script":"true",'
        '"expose":{"min_scale":0,"max_scale":0,"cpu_threshold":0,"rewrite_target":false,"default_command":false,'
        '"set_auth":false,"health_path":""},"environment":{"variables":{},"secrets":{}},"annotations":{},"vo":"",'
        '"labels":{},"owner":"","interlink_node_name":"","visibility":"private","allowed_users":[],'
        '"isolation_level":"SERVICE","bucket_list":[],"mount":{"storage_provider":"","path":""},'
        '"volume_status":{"enabled":false}}'
    )


def test_keys_are_read_in_any_case_and_unknown_ones_are_ignored() -> None:
    service = service_from_json({"NAME": "pulsar", "Image": "alpine", "script": "true", "surprise": [1], "CPU": "1"})
    assert (service.name, service.cpu) == ("pulsar", "1")


def test_both_spellings_of_variables_are_merged() -> None:
    service = service_from_json({**LEAST, "environment": {"Variables": {"A": "1"}, "variables": {"B": "2"}}})
    assert service.environment.variables == {"A": "1", "B": "2"}


def test_null_is_an_absent_value() -> None:
    service = service_from_json({**LEAST, "memory": None, "input": None, "environment": {"variables": {"A": None}}})
    assert (service.memory, service.input, service.environment.variables) == ("256Mi", [], {"A": ""})


def test_empty_sizes_are_the_defaults() -> None:
    service = service_from_json({**LEAST, "memory": "", "cpu": "", "visibility": "", "log_level": ""})
    assert (service.memory, service.cpu, service.visibility, service.log_level) == ("256Mi", "0.2", "private", "INFO")


@pytest.mark.parametrize("level, read", [("critical", "CRITICAL"), ("chatty", "INFO")])
def test_log_levels_are_upper_cased_and_unknown_ones_are_info(level: str, read: str) -> None:
    assert service_from_json({**LEAST, "log_level": level}).log_level == read


@pytest.mark.parametrize("given_ports, read", [(80, [80]), ([80, 443], [80, 443]), (0, []), ([], [])])
def test_ports_are_a_number_or_a_list(given_ports: Any, read: list[int]) -> None:
    service = service_from_json({**LEAST, "expose": {"api_port": given_ports, "nodePort": given_ports}})
    assert (service.expose.api_port, service.expose.nodePort) == (read, read)
    assert service.exposed == bool(read)


def test_scripts_are_read_with_unix_line_ends() -> None:
    assert service_from_json({**LEAST, "script": "a\r\nb\rc\n"}).script == "a\nb\nc\n"


@pytest.mark.parametrize(
    "path, bucket, folder",
    [(" /pulsar/in/ ", "pulsar", "in"), ("in", "pulsar", "in"), ("shared/a/b", "shared", "a/b")],
)
def test_a_path_is_a_bucket_and_a_folder_and_below_the_services_bucket_if_it_names_none(
    path: str, bucket: str, folder: str
) -> None:
    entry = service_from_json({**LEAST, "input": [{"storage_provider": "MinIO", "path": path}]}).input[0]
    assert (entry.bucket, entry.folder, entry.provider_type, entry.provider_id) == (bucket, folder, "minio", "default")


def test_paths_of_other_stores_are_only_trimmed() -> None:
    service = service_from_json(
        {
            **LEAST,
            "output": [{"storage_provider": "webdav.dcache", "path": "/data/"}],
            "storage_providers": {"webdav": {"dcache": {"hostname": "h", "login": "l", "password": "p"}}},
        }
    )
    assert service.output[0].path == "data"
    assert service.mailboxes == []


def test_what_a_cluster_emits_it_reads_again() -> None:
    full = {
        **LEAST,
        "federation": {"group_id": "g", "members": [{"type": "oscar", "cluster_id": "c"}]},
        "expose": {"api_port": [80]},
        "input": [{"storage_provider": "minio", "path": "in", "suffix": [".fil"]}],
        "storage_providers": {"minio": {"default": {"endpoint": "http://x", "verify": False}}},
        "volume": {"size": "1Gi", "mount_path": "/data"},
        "kserve": {"type": "inference", "inference": {"model_format": "onnx"}},
        "deployment": {"state": "ready"},
        "mount": {"storage_provider": "minio.default", "path": "data"},
    }
    service = service_from_json(full)
    assert service_from_json(service.to_json()) == service


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"cpu": 0.5}, 'cpu: 0.5 is no text; write "0.5"'),
        ({"memory": "4GB"}, 'memory: "4GB" is no Kubernetes quantity; write "4Gi"'),
        ({"cpu": "two"}, 'cpu: "two" is no Kubernetes quantity; write "0.5"'),
        ({"script": ""}, "script: is empty; fill it in"),
        ({"image": None}, "image: is missing; add it"),
        ({"enable_gpu": "yes"}, 'enable_gpu: "yes" is neither true nor false; write one of them, without quotes'),
        ({"input": {}}, "input: {} is no list; write a list"),
        ({"environment": {"variables": {"N": 1}}}, 'environment.variables.N: 1 is no text; write "1"'),
        ({"environment": {"variables": {"A B": "1"}}}, "is no name of an environment variable"),
        ({"annotations": {"a b": "1"}}, 'annotations: "a b" is no Kubernetes annotation or label name; write "a-b"'),
        ({"annotations": {"dioscar/retries": "many"}}, 'dioscar/retries: "many" is no whole number'),
        ({"annotations": {"dioscar/timeout": "10 min"}}, 'write "10"'),
        ({"annotations": {"dioscar/executor": "proces"}}, 'write "process"'),
        ({"annotations": {"dioscar/idle": "0"}}, 'dioscar/idle: "0" is no whole number from 1 up'),
        ({"annotations": {"dioscar/network": "yes"}}, 'dioscar/network: "yes" is neither true nor false; write "true"'),
        ({"expose": {"api_port": 70000}}, "expose.api_port: 70000 is no port"),
        ({"expose": {"api_port": "80"}}, "expose.api_port[0]"),
        ({"synchronous": {"min_scale": -1}}, "synchronous.min_scale: -1 is below zero"),
        ({"volume": {"size": "1Gi"}}, "volume.mount_path: is missing"),
        ({"volume": {"size": "1Gi", "mount_path": "/d", "lifecycle_policy": "keep"}}, 'lifecycle_policy: "keep" is'),
    ],
)
def test_a_wrong_field_is_named_with_its_mend(fields: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(**fields)


@pytest.mark.parametrize(
    "entry, sentence",
    [
        ({"storage_provider": "minio", "path": " / "}, 'input[0].path: input path cannot be empty; write "pulsar/in"'),
        ({"storage_provider": "minio", "path": "Up/in"}, 'input[0].path: "Up" is no bucket name'),
        ({"storage_provider": "minio", "path": "abc/../in"}, "has an empty or dotted folder"),
        ({"storage_provider": "s3.mine", "path": "abc/in"}, '"s3.mine" is an unrecognized input'),
        ({"storage_provider": "mino", "path": "abc/in"}, 'write "minio.default"'),
        ({"storage_provider": "minio.other", "path": "abc/in"}, 'the StorageProvider "minio.other" is not defined'),
        ({"path": "abc/in"}, "input[0].storage_provider: is missing"),
    ],
)
def test_an_input_that_cannot_be_is_refused(entry: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(input=[entry])


@pytest.mark.parametrize("body", [None, [], "text", 3, {}, {"name": 5}])
def test_a_body_that_is_no_service_is_refused(body: Any) -> None:
    with pytest.raises(FdlError):
        service_from_json(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)
KEYS = ["input", "expose", "environment", "annotations", "storage_providers", "mount", "volume", "federation", "cpu"]


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_whatever_comes_is_a_service_or_one_sentence(fields: dict[str, Any]) -> None:
    try:
        service = service_from_json({**LEAST, **fields})
    except FdlError as error:
        sentence = str(error)
    else:
        sentence = ""
        assert service_from_json(service.to_json()) == service
    assert "\n" not in sentence


@pytest.mark.parametrize("name", ["a\nb", "\ud800", "x" * 100_000, "\x1b[31mred", "\u2028", '"quoted"'])
def test_a_sentence_is_one_short_printable_line_whatever_it_quotes(name: str) -> None:
    for fields in (
        {"name": name},
        {"memory": name},
        {"environment": {"variables": {"": name}}},
        {"annotations": {name: "1"}},
    ):
        sentence = refusal(**fields)
        assert sentence.isprintable()
        assert len(sentence) < 1000
        sentence.encode()


def test_a_value_that_is_deeply_nested_is_refused_like_any_other() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert refusal(image=nested) == "holds a value within a value without end; remove it"


def test_half_a_character_is_replaced_as_go_does() -> None:
    service = service_from_json({**LEAST, "vo": "a\ud800", "deployment": {"\udfff": 1}, "labels": {"x": "\ud800"}})
    assert (service.vo, service.deployment, service.labels) == ("a?", {"?": 1}, {"x": "?"})
    assert dumps(service.to_json()).encode()
