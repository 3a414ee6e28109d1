"""Applying goes through OSCAR's own client, each service on its own."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fdl.apply import Endpoint, Result, apply, make_registries, services_on
from fdl.document import Document, read_file
from fdl.errors import ClusterError, UnreachableError
from fdl.overrides import override
from fdl.plan import Instruction, plan
from fdl.split import split
from tests.cluster import Cluster
from tests.fdl.conftest import SmallOscar, service

Make = Callable[..., Document]
PULSAR = Path(__file__).parents[2] / "fdl/pulsar.yaml"


def carry_out(document: Document, oscar: SmallOscar) -> list[Result]:
    client = oscar.endpoint.client()
    return list(apply(plan(document, services_on(client)), client))


def test_a_first_apply_creates_and_a_second_one_changes_nothing(oscar: SmallOscar) -> None:
    document = read_file(PULSAR)
    assert {result.action for result in carry_out(document, oscar)} == {"create"}
    assert set(oscar.services) == {entry.name for entry in document.services}
    oscar.calls.clear()
    assert {result.action for result in carry_out(document, oscar)} == {"unchanged"}
    assert oscar.calls == []


def test_what_differs_is_updated_and_nothing_else(oscar: SmallOscar, document: Make) -> None:
    carry_out(document(service("one"), service("two")), oscar)
    oscar.calls.clear()
    carry_out(document(service("one"), service("two", memory="2Gi")), oscar)
    assert oscar.calls == [("PUT", "two")]
    assert oscar.services["two"]["memory"] == "2Gi"


def test_one_refused_service_does_not_stop_the_others(oscar: SmallOscar, document: Make) -> None:
    oscar.refused["one"] = "A service with the provided name already exists"
    one, two = carry_out(document(service("one"), service("two")), oscar)
    assert one.error == f"{oscar.endpoint.url}: A service with the provided name already exists (400)"
    assert two == Result("two", "create")


def test_a_wrong_password_is_said_to_be_one(oscar: SmallOscar) -> None:
    wrong = dataclasses.replace(oscar.endpoint, password="guess")
    with pytest.raises(ClusterError, match="refuses the credentials"):
        services_on(wrong.client())


def test_an_endpoint_where_nobody_answers_is_said_to_be_one() -> None:
    with pytest.raises(UnreachableError, match="nobody answers"):
        services_on(Endpoint("dioscar", "http://127.0.0.1:1", "oscar", "x").client())


def test_an_endpoint_that_is_no_address_is_said_to_be_one() -> None:
    with pytest.raises(ClusterError, match="correct the endpoint"):
        services_on(Endpoint("dioscar", "oscar.example", "oscar", "x").client())


def test_each_file_of_a_split_is_deployed_by_oscar_python_alone(oscar: SmallOscar, tmp_path: Path) -> None:
    document = read_file(PULSAR)
    client = oscar.endpoint.client()
    for path in split(document, tmp_path):
        client.create_service(str(path))
    assert {step.action for step in plan(document, services_on(client))} == {"unchanged"}


def test_the_bucket_of_a_registry_is_made_once(oscar: SmallOscar) -> None:
    client = oscar.endpoint.client()
    assert make_registries(["models"], client) == make_registries(["models"], client) == ()
    assert oscar.buckets == ["models"]
    assert make_registries([], client) == ()


def test_a_registry_that_cannot_be_made_is_said_to_be_missing(oscar: SmallOscar) -> None:
    oscar.refused["models"] = "quota exceeded"
    (warning,) = make_registries(["models"], oscar.endpoint.client())
    assert "the bucket models, where versions of models are to go, is not there" in warning
    assert "quota exceeded" in warning and "make it" in warning


# on the embedded cluster


def test_the_registry_of_the_embedded_cluster_may_be_there_already(cluster: Cluster) -> None:
    client = endpoint_of(cluster).client()
    assert make_registries(["fdl-models"], client) == make_registries(["fdl-models"], client) == ()
    assert [found for found in cluster.get("/system/buckets") if found["bucket_name"] == "fdl-models"]


def test_the_pulsar_twin_is_planned_applied_and_found_unchanged(cluster: Cluster) -> None:
    document = override(read_file(PULSAR), prefix="fdl")
    client = endpoint_of(cluster).client()
    first = plan(document, services_on(client))
    assert {step.action for step in first} == {"create"}
    assert [result.error for result in apply(first, client)] == [None] * len(document.services)
    assert {step.action for step in plan(document, services_on(client))} == {"unchanged"}
    variables = cluster.get("/system/services/fdl-pulsar-preprocess")["environment"]["variables"]
    assert variables["DIOSCAR_FUNCTION"] == "pulsar.preprocess"
    assert variables["FORWARD"] == "*.h5 -> fdl-pulsar-classify/in"


def test_an_update_reaches_the_embedded_cluster(cluster: Cluster, document: Make) -> None:
    client = endpoint_of(cluster).client()
    for memory in ("1Gi", "2Gi"):
        instructions = plan(document(service("fdl-update", memory=memory)), services_on(client))
        assert [result.error for result in apply(instructions, client)] == [None]
        assert cluster.get("/system/services/fdl-update")["memory"] == memory


def test_each_file_of_a_split_is_deployed_on_the_embedded_cluster_by_oscar_python_alone(
    cluster: Cluster, tmp_path: Path
) -> None:
    document = override(read_file(PULSAR), prefix="alone")
    client = endpoint_of(cluster).client()
    for path in split(document, tmp_path):
        client.create_service(str(path))
    assert {step.action for step in plan(document, services_on(client))} == {"unchanged"}
    client.update_service("alone-pulsar-train", str(tmp_path / "alone-pulsar-train.yaml"))
    assert client.get_service("alone-pulsar-train").json()["cpu"] == "2.0"


def test_what_the_cluster_refuses_is_said_in_its_words(cluster: Cluster, document: Make) -> None:
    client = endpoint_of(cluster).client()
    wrong = document(service("fdl-wrong")).services[0].model_copy(update={"memory": "lots"})
    (result,) = apply([Instruction("create", wrong)], client)
    assert result.error is not None
    assert 'memory: "lots" is no Kubernetes quantity; write "1Gi" (400)' in result.error


def endpoint_of(cluster: Cluster) -> Endpoint:
    facts = cluster.facts
    return Endpoint("dioscar", facts["api"], facts["oscar_username"], facts["oscar_password"])


def test_a_split_writes_variables_under_both_spellings(tmp_path: Path) -> None:
    for path in split(read_file(PULSAR), tmp_path):
        ((entry,),) = [yaml.safe_load(path.read_text())["functions"]["oscar"]]
        environment = entry["dioscar"]["environment"]
        assert environment["Variables"] == environment["variables"]
        assert isinstance(entry["dioscar"]["cpu"], str)
