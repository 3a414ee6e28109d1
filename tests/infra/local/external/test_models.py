"""Models whose registry is in another store: nobody tells of promotions there, so they are looked for."""

import base64
from pathlib import Path

from layers.learning.registry import Manifest, Registry
from layers.objects.client import S3Client
from tests.cluster import Cluster, eventually
from tests.infra.local.external.linked import Linked, linked

MODEL = "tiny-model"
VARIABLES = {"DIOSCAR_FUNCTION": "contract.serve", "DIOSCAR_REGISTRY": "far-models"}


def answer(cluster: Cluster, name: str) -> int:
    """The weight of the model that serves a call."""
    response = cluster.run(name, b"1")
    assert response.status_code == 200, response.text
    return int(base64.b64decode(response.content))


def registry_of(world: Linked) -> Registry:
    facts = world.cluster.facts
    client = S3Client(world.gateway.url, facts["minio_access_key"], facts["minio_secret_key"])
    return Registry(client, "far-models")


def promote(registry: Registry, weight: int, tmp: Path) -> None:
    path = tmp / "model"
    path.write_text(str(weight))
    version = registry.add(Manifest.of(MODEL, path.read_bytes()), path)
    registry.promote(MODEL, version, force=True, reason="a test")


def test_a_promotion_in_another_store_serves_soon_and_goes_on_while_the_store_is_away(tmp_path: Path) -> None:
    with linked(tmp_path) as world:
        world.cluster.deploy("far-maker", variables={**VARIABLES, "FORWARD": "*.none -> far-models/tiny-model"})

        def is_made() -> bool:
            return "far-models" in {entry["Name"] for entry in world.s3.list_buckets()["Buckets"]}

        eventually(is_made, what="the registry's bucket")
        world.cluster.deploy("far-answer", variables=VARIABLES)
        assert answer(world.cluster, "far-answer") == 3
        promote(registry_of(world), 5, tmp_path)
        eventually(lambda: answer(world.cluster, "far-answer") == 5, what="the promoted version")

        world.gateway.stop()
        for _ in range(3):
            assert answer(world.cluster, "far-answer") == 5
