"""A plan says what applying would do, field by field, and needs no cluster."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fdl.document import Document, read_file
from fdl.errors import FdlError
from fdl.overrides import move_image, override
from fdl.plan import Change, plan
from fdl.split import split
from tests.fdl.conftest import service

Make = Callable[..., Document]


def there(document: Document, **changed: Any) -> dict[str, dict[str, Any]]:
    return {entry.name: {**entry.to_json(), **changed} for entry in document.services}


def test_an_empty_cluster_gets_everything_consumers_first(document: Make) -> None:
    producer = service("one", environment={"variables": {"FORWARD": "* -> two/in"}})
    instructions = plan(document(producer, service("two")), {})
    assert [(step.action, step.service.name) for step in instructions] == [("create", "two"), ("create", "one")]


def test_a_cluster_that_is_as_the_file_says_is_left_alone(document: Make) -> None:
    one = document(service("one", labels={"team": "x"}))
    written_by_the_server = {
        "token": "0" * 64,
        "owner": "cluster_admin",
        "namespace": "oscar-svc",
        "labels": {"team": "x", "oscar_service": "one", "oscar.grycap/user-service": "true"},
        "storage_providers": {"minio": {"default": {"endpoint": "http://minio", "access_key": "hidden"}}},
        "deployment": {"state": "ready"},
    }
    assert [step.action for step in plan(one, there(one, **written_by_the_server))] == ["unchanged"]


def test_a_difference_is_an_update_that_names_its_fields(document: Make) -> None:
    one = document(service("one", memory="2Gi", environment={"variables": {"A": "1", "B": "2"}}))
    current = there(one, memory="1Gi", environment={"variables": {"A": "1", "C": "3"}})
    (step,) = plan(one, current)
    assert step.action == "update"
    assert set(step.changes) == {
        Change("memory", "1Gi", "2Gi"),
        Change("environment.variables.B", None, "2"),
        Change("environment.variables.C", "3", None),
    }
    assert step.to_json()["changes"][0] == {"field": "memory", "before": "1Gi", "after": "2Gi"}


def test_secrets_are_sent_each_time_since_a_cluster_never_tells_them(document: Make) -> None:
    one = document(service("one", environment={"secrets": {"KEY": "value"}}))
    (step,) = plan(one, there(one))
    assert step.action == "update"
    assert "value" not in str(step.changes)


def test_services_that_the_file_does_not_name_are_left_alone(document: Make) -> None:
    one = document(service("one"))
    assert len(plan(one, {**there(one), "other": {"name": "other"}})) == 1


def test_a_service_that_makes_no_sense_there_is_replaced(document: Make) -> None:
    (step,) = plan(document(service("one")), {"one": {"name": "one", "memory": 5}})
    assert step.action == "update"


# overrides


@pytest.mark.parametrize(
    "image, moved",
    [
        ("ghcr.io/dioscar/dioscar-pulsar:0.1.0", "example.org:5000/x/dioscar-pulsar:main"),
        ("docker://ghcr.io/dioscar/dioscar-pulsar:0.1.0", "docker://example.org:5000/x/dioscar-pulsar:main"),
        ("ghcr.io/dioscar/dioscar-pulsar@sha256:00ff", "example.org:5000/x/dioscar-pulsar:main"),
        ("dioscar-pulsar", "example.org:5000/x/dioscar-pulsar:main"),
        ("localhost:5000/python:3.12", "localhost:5000/python:3.12"),
    ],
)
def test_only_the_projects_images_move(image: str, moved: str) -> None:
    assert move_image(image, "example.org:5000/x/", "main") == moved


def test_a_prefix_renames_services_mailboxes_and_the_forwards_between_them(document: Make) -> None:
    forward = "*.h5 -> two/in; *.png -> archive/plots"
    outputs = [{"storage_provider": "minio.default", "path": path} for path in ("one/out", "archive/all")]
    before = document(
        service("one", environment={"variables": {"FORWARD": forward, "X": "two/in"}}, output=outputs),
        service("two", annotations={"dioscar/loop": "one/in, far/in"}),
    )
    one, two = override(before, prefix="test").services
    assert (one.name, two.name) == ("test-one", "test-two")
    assert [entry.path for entry in one.input + one.output] == ["test-one/in", "test-one/out", "archive/all"]
    assert one.environment.variables["FORWARD"] == "*.h5 -> test-two/in; *.png -> archive/plots"
    assert one.environment.variables["X"] == "two/in"
    assert two.annotations["dioscar/loop"] == "test-one/in,far/in"


@pytest.mark.parametrize("prefix", ["Up", "-", "a" * 40, "a_b", ""])
def test_a_prefix_that_makes_no_service_name_is_refused(document: Make, prefix: str) -> None:
    with pytest.raises(FdlError, match=r"twin\.yaml: the prefix .* is no service name; write"):
        override(document(service("one")), prefix=prefix)


def two_clusters(fdl_file: Callable[..., Path]) -> Document:
    entries = [{"here": service("one")}, {"there": service("one")}, {"there": service("two")}]
    return read_file(fdl_file(json.dumps({"functions": {"oscar": entries}})))


def test_of_a_file_for_several_clusters_those_of_the_chosen_one_are_taken(fdl_file: Callable[..., Path]) -> None:
    chosen = override(two_clusters(fdl_file), cluster_id="there")
    assert [(entry.cluster_id, entry.name) for entry in chosen.services] == [("there", "one"), ("there", "two")]
    with pytest.raises(FdlError, match='speaks of the clusters here, there and not of "dioscar"'):
        override(two_clusters(fdl_file), cluster_id="dioscar")


def test_of_a_file_for_one_cluster_all_are_taken_to_any(document: Make) -> None:
    moved = override(document(service("one")), cluster_id="elsewhere")
    assert [entry.cluster_id for entry in moved.services] == ["elsewhere"]


def test_a_service_on_two_clusters_cannot_be_planned_before_one_is_chosen(
    fdl_file: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(FdlError, match=r'functions\.oscar\[0\]\.name: "one" is on several clusters'):
        plan(two_clusters(fdl_file), {})
    with pytest.raises(FdlError, match="is on several clusters"):
        split(two_clusters(fdl_file), tmp_path / "out")


# one file for each service


def test_the_files_of_a_split_say_the_same_as_the_file(document: Make, tmp_path: Path) -> None:
    whole = document(
        service("one", environment={"variables": {"N": "1", "TEXT": "größe: yes"}}, expose={"api_port": 80}),
        service("two", cpu="2", memory="1Gi", environment={"secrets": {"KEY": "value"}}),
    )
    files = split(whole, tmp_path / "out")
    assert [path.name for path in files] == ["one.yaml", "two.yaml"]
    assert tuple(read_file(path).services[0] for path in files) == whole.services
