"""Whose registry serves whose functions: one's own, the administrator's where it is shared, and one that is named."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from layers.learning.registry import Manifest, Registry
from layers.objects.client import S3Client
from tests.cluster import FUNCTION_SCRIPT, Cluster, eventually
from tests.infra.local.users.conftest import Person

MODEL = "tiny-model"


@pytest.fixture(autouse=True)
def services(cluster: Cluster, alice: Person) -> Iterator[None]:
    """One of the administrator's and one of Alice's; and no registry is left."""
    yield
    for name in ("models-admin", "models-alice"):
        cluster.http.delete(cluster.url(f"/system/services/{name}"))


def deploy(cluster: Cluster, alice: Person, **variables: str) -> None:
    wanted = {"DIOSCAR_FUNCTION": "contract.serve", **variables}
    cluster.deploy("models-admin", variables=wanted)
    alice.deploy("models-alice", script=FUNCTION_SCRIPT, environment={"variables": wanted})


def served(cluster: Cluster, name: str) -> int:
    """The weight of the model that serves a call."""
    answer = cluster.run(name, b"1")
    assert answer.status_code == 200, answer.text
    return int(base64.b64decode(answer.content))


def make(cluster: Cluster, person: Person | None, bucket: str, visibility: str, weight: int, tmp: Path) -> None:
    """A bucket in which a model is promoted."""
    document = {"bucket_name": bucket, "visibility": visibility}
    if person is None:
        answer = cluster.http.post(cluster.url("/system/buckets"), json=document)
    else:
        answer = person.ask("POST", "/system/buckets", json=document)
    assert answer.status_code == 201, answer.text
    keys = person.keys if person else {}
    access, secret = keys.get("access_key"), keys.get("secret_key")
    s3 = S3Client(cluster.facts["s3"], access, secret) if access and secret else cluster.s3
    registry = Registry(s3, bucket)
    path = tmp / "model"
    path.write_text(str(weight))
    version = registry.add(Manifest.of(MODEL, path.read_bytes()), path)
    registry.promote(MODEL, version, force=True, reason="a test")


def remove(cluster: Cluster, bucket: str) -> None:
    for found in cluster.s3.list(bucket):
        cluster.s3.delete(bucket, found.key)
    assert cluster.http.delete(cluster.url(f"/system/buckets/{bucket}")).status_code == 204


def test_what_a_user_calls_the_registry_of_all_serves_nobody_else(
    cluster: Cluster, alice: Person, bob: Person, tmp_path: Path
) -> None:
    deploy(cluster, alice)
    make(cluster, bob, "models", "public", 5, tmp_path)
    assert (served(cluster, "models-admin"), served(cluster, "models-alice")) == (3, 3)
    remove(cluster, "models")


def test_the_administrators_registry_serves_users_once_it_is_shared(
    cluster: Cluster, alice: Person, tmp_path: Path
) -> None:
    deploy(cluster, alice)
    make(cluster, None, "models", "private", 5, tmp_path)
    assert (served(cluster, "models-admin"), served(cluster, "models-alice")) == (5, 3)

    shared = {"bucket_name": "models", "visibility": "restricted", "allowed_users": [alice.uid]}
    assert cluster.http.put(cluster.url("/system/buckets"), json=shared).status_code == 204
    eventually(lambda: served(cluster, "models-alice") == 5, what="the shared registry's model")
    private = {"bucket_name": "models", "visibility": "private"}
    assert cluster.http.put(cluster.url("/system/buckets"), json=private).status_code == 204
    assert (served(cluster, "models-admin"), served(cluster, "models-alice")) == (5, 3)
    remove(cluster, "models")


def test_a_registry_that_a_service_names_serves_it_where_its_owner_sees_it(
    cluster: Cluster, alice: Person, bob: Person, tmp_path: Path
) -> None:
    make(cluster, alice, "alices-models", "private", 5, tmp_path)
    make(cluster, bob, "bobs-models", "private", 7, tmp_path)
    deploy(cluster, alice, DIOSCAR_REGISTRY="alices-models")
    assert served(cluster, "models-alice") == 5
    environment = {"variables": {"DIOSCAR_FUNCTION": "contract.serve", "DIOSCAR_REGISTRY": "bobs-models"}}
    alice.deploy("models-alice", 204, change=True, script=FUNCTION_SCRIPT, environment=environment)
    assert served(cluster, "models-alice") == 3
