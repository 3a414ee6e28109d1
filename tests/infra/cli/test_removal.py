"""`delete`, `rm`: what goes is what was named, and what stays is said."""

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from tests.cluster import Cluster, eventually
from tests.fdl.conftest import small_oscar
from tests.infra.cli.conftest import Dioscar

Fdl = Callable[..., Path]


@pytest.fixture
def service(on: Dioscar, fdl_file: Fdl, request: pytest.FixtureRequest) -> str:
    name = f"rm-{crc32(request.node.name.encode()):08x}"
    assert on("apply", fdl_file(name)).status == 0
    return name


def put(cluster: Cluster, bucket: str, *keys: str) -> None:
    for key in keys:
        cluster.put(bucket, key, key.encode())


def keys(cluster: Cluster, bucket: str) -> list[str]:
    return [found.key for found in cluster.s3.list(bucket)]


def test_a_deleted_service_is_gone_with_its_empty_bucket(on: Dioscar, service: str) -> None:
    assert on("delete", service).out == f"{service} deleted\n"
    assert f"there is no service {service}" in on("invoke", service).err
    assert service not in on("ls").out


def test_a_bucket_that_holds_objects_stays_and_is_named(on: Dioscar, service: str, cluster: Cluster) -> None:
    put(cluster, service, "kept/a")
    said = on("delete", service)
    assert said.out == (
        f"{service} deleted\nits bucket {service} holds objects and stays; dioscar rm -r {service} removes it\n"
    )
    assert on("rm", "-r", service).out == f"{service}: 1 object and the bucket removed\n"
    assert service not in on("ls").out


def test_programs_are_told_which_buckets_stay(on: Dioscar, service: str, cluster: Cluster) -> None:
    put(cluster, service, "kept/a")
    assert on("delete", "--json", service).json == [{"service": service, "kept": [service]}]
    assert on("rm", "--json", "-r", service).json == [{"place": service, "objects": 1, "bucket": True}]


def test_a_misspelt_name_deletes_nothing(on: Dioscar, service: str) -> None:
    said = on("delete", service, service + "x")
    assert (said.status, said.out) == (66, "")
    assert said.err == f"dioscar: there is no service {service}x; there is {service}\n"
    assert on("delete", service).status == 0


def test_where_the_buckets_go_too_it_has_to_be_meant(dioscar: Dioscar, monkeypatch: pytest.MonkeyPatch) -> None:
    with small_oscar() as oscar:
        monkeypatch.setenv("OSCAR_USERNAME", oscar.endpoint.user)
        monkeypatch.setenv("OSCAR_PASSWORD", oscar.endpoint.password)
        oscar.services["theirs"] = {"name": "theirs", "input": [], "output": []}
        said = dioscar("delete", "theirs", "--cluster", oscar.endpoint.url)
        assert said.status == 2
        assert "OSCAR deletes a service's buckets with all in them; get what you need, then add --yes" in said.err
        assert "theirs" in oscar.services
        assert dioscar("delete", "theirs", "--yes", "--cluster", oscar.endpoint.url).out == "theirs deleted\n"
        assert "theirs" not in oscar.services


def test_an_object_goes_and_its_neighbours_stay(on: Dioscar, service: str, cluster: Cluster) -> None:
    put(cluster, service, "a", "a/b", "ab")
    assert on("rm", f"{service}/a").out == f"{service}/a removed\n"
    assert keys(cluster, service) == ["a/b", "ab"]


def test_a_folder_or_a_bucket_goes_only_when_it_is_meant(on: Dioscar, service: str, cluster: Cluster) -> None:
    put(cluster, service, "f/a", "f/deep/b", "fg")
    for place, what in ((f"{service}/f", "folder"), (f"{service}/f/", "folder"), (service, "bucket")):
        said = on("rm", place)
        assert (said.status, said.out) == (2, "")
        assert said.err == f"dioscar: {place}: is a {what}; -r removes it with all in it\n"
    assert on("rm", "-r", f"{service}/f").out == f"{service}/f: 2 objects removed\n"
    assert keys(cluster, service) == ["fg"]


def test_a_pattern_removes_what_it_matches(on: Dioscar, service: str, cluster: Cluster) -> None:
    put(cluster, service, "f/a.png", "f/b.png", "f/c.txt", "f/[x]")
    assert on("rm", f"{service}/f/*.png").out == f"{service}/f/*.png: 2 objects removed\n"
    assert on("rm", f"{service}/f/[x]").status == 0
    assert keys(cluster, service) == ["f/c.txt"]


def test_what_is_not_there_is_said_before_anything_goes(on: Dioscar, service: str, cluster: Cluster) -> None:
    put(cluster, service, "a")
    for place in (f"{service}/gone", f"{service}/gone/", f"{service}/*.gone", "no-such-bucket/a"):
        said = on("rm", "-r", f"{service}/a", place)
        assert (said.status, said.out) == (66, "")
        assert "there is no such" in said.err
    assert on("rm", "/").status == 2
    assert keys(cluster, service) == ["a"]


def test_the_bucket_of_a_deployed_service_is_emptied_and_stays(on: Dioscar, service: str, cluster: Cluster) -> None:
    put(cluster, service, "a")
    said = on("rm", "-r", service)
    assert (said.status, said.out) == (0, f"{service}: 1 object removed\n")
    assert said.err == f"the bucket {service} stays: {service} listens to it\n"
    put(cluster, service, "in/b")
    eventually(lambda: cluster.jobs(service=service, state="Succeeded"))
