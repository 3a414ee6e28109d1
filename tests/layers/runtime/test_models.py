"""Models in a pod, where no engine hands them out: from the registry with the job's credentials, or as shipped."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import pytest
import yaml

from layers.learning.registry import Manifest, Registry
from layers.objects.errors import StoreUnavailable
from layers.runtime import models
from layers.runtime.contract import Exit
from tests.cluster import TWIN, Cluster

MODEL = "tiny-model"
NUMBERS = count()
Ran = tuple[int, str, str]
Run = Callable[..., Ran]


@pytest.fixture
def registry(cluster: Cluster) -> Registry:
    bucket = f"pod-models-{next(NUMBERS)}"
    cluster.http.post(cluster.url("/system/buckets"), json={"bucket_name": bucket}).raise_for_status()
    return Registry(cluster.s3, bucket)


@pytest.fixture
def promote(registry: Registry, tmp_path: Path) -> Callable[[int], models.Promotion]:
    def work(weight: int) -> models.Promotion:
        path = tmp_path / "model"
        path.write_text(str(weight))
        version = registry.add(Manifest.of(MODEL, path.read_bytes()), path)
        return registry.promote(MODEL, version, force=True, reason="a test")

    return work


@pytest.fixture
def run(cluster: Cluster, registry: Registry, tmp_path: Path) -> Run:
    """A job of `contract.serve` on 1, in a process like a pod's: exit status, output, and what was printed."""

    def work(variables: Mapping[str, str] | None = None, *, keys: tuple[str, str] | None = None) -> Ran:
        (tmp_path / "in").mkdir(exist_ok=True)
        out = tmp_path / f"out-{next(NUMBERS)}"
        (tmp_path / "in" / "a").write_text("1")
        out.mkdir()
        access, secret = keys or (cluster.facts["minio_access_key"], cluster.facts["minio_secret_key"])
        provider = {"endpoint": cluster.facts["s3"], "access_key": access, "secret_key": secret, "verify": True}
        config = {"name": "serve", "storage_providers": {"minio": {"default": provider}}}
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(TWIN),
            "TMPDIR": str(tmp_path),
            "DIOSCAR_FUNCTION": "contract.serve",
            "DIOSCAR_REGISTRY": registry.bucket,
            "FUNCTION_CONFIG": base64.b64encode(yaml.safe_dump(config).encode()).decode(),
            "INPUT_FILE_PATH": str(tmp_path / "in" / "a"),
            "TMP_OUTPUT_DIR": str(out),
            "STORAGE_OBJECT_KEY": "in/a",
            "JOB_UUID": "a-job",
            **(variables or {}),
        }
        environ = {name: value for name, value in environ.items() if value}
        command = [sys.executable, "-P", "-m", "layers.runtime"]
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
        found = list(out.rglob("*.out"))
        return ended.returncode, found[0].read_text() if found else "", ended.stdout + ended.stderr

    return work


def test_what_was_promoted_serves_with_the_jobs_credentials(run: Run, promote: Callable[[int], models.Promotion]):
    assert run()[:2] == (Exit.DONE, "3"), "nothing was promoted: the shipped file serves"
    promote(5)
    promote(7)
    assert run()[:2] == (Exit.DONE, "7")


def test_the_fetched_file_goes_with_its_process(run: Run, promote: Callable[[int], models.Promotion], tmp_path: Path):
    promote(5)
    assert run()[0] == Exit.DONE
    assert list(tmp_path.glob("dioscar-models-*")) == []


def test_without_credentials_or_a_registry_the_shipped_file_serves(
    run: Run, promote: Callable[[int], models.Promotion]
):
    promote(5)
    assert run({"FUNCTION_CONFIG": ""})[:2] == (Exit.DONE, "3")
    assert run({"DIOSCAR_REGISTRY": "nowhere-at-all"})[:2] == (Exit.DONE, "3")
    assert run({"DIOSCAR_ENGINE": "embedded"})[:2] == (Exit.DONE, "3"), "an engine hands out what is promoted"


def test_a_registry_that_is_closed_is_told_and_where_it_was_named_is_an_error(run: Run):
    code, out, printed = run({"DIOSCAR_REGISTRY": ""}, keys=("nobody", "nobody-at-all"))
    assert (code, out) == (Exit.DONE, "3") and "the registry is closed" in printed
    code, out, printed = run(keys=("nobody", "nobody-at-all"))
    assert (code, out) == (Exit.FAILED, "") and "AccessRefused" in printed


def test_a_version_that_cannot_be_had_is_an_error_and_not_the_shipped_file(
    run: Run, registry: Registry, promote: Callable[[int], models.Promotion]
):
    promotion = promote(5)
    key = models.model_key(MODEL, promotion.version)
    registry._client.put(registry.bucket, key, b"damaged")
    code, out, printed = run()
    assert (code, out) == (Exit.FAILED, "") and f"{key}: is damaged" in printed
    registry._client.delete(registry.bucket, key)
    code, out, printed = run()
    assert (code, out) == (Exit.FAILED, "") and f"{promotion.place.key} names it" in printed
    registry._client.put(registry.bucket, promotion.place.key, json.dumps({"version": promotion.version}).encode())
    code, out, printed = run()
    assert (code, out) == (Exit.FAILED, "") and "is no promotion" in printed


def test_what_the_variables_pin_is_not_asked_for(run: Run, promote: Callable[[int], models.Promotion], tmp_path: Path):
    promote(5)
    (tmp_path / "pinned").write_text("11")
    pinned = {"DIOSCAR_MODEL_TINY_MODEL": str(tmp_path / "pinned")}
    assert run(pinned, keys=("nobody", "nobody-at-all"))[:2] == (Exit.DONE, "11")


def test_a_variable_may_pin_an_alias(run: Run, registry: Registry, promote: Callable[[int], models.Promotion]):
    canary = {"DIOSCAR_MODEL_TINY_MODEL": "canary"}
    code, out, printed = run(canary)
    assert (code, out) == (Exit.FAILED, "") and 'nothing was promoted as "canary"' in printed
    promotion = promote(5)
    promote(7)
    registry.promote(MODEL, promotion.version, alias="canary", force=True, reason="a test")
    assert run(canary)[:2] == (Exit.DONE, "5")
    assert run()[:2] == (Exit.DONE, "7")


def test_the_file_has_its_promotion_beside_it(
    cluster: Cluster, registry: Registry, promote: Callable[[int], models.Promotion], tmp_path: Path
):
    promotion = promote(5)
    path = models.fetch(cluster.s3, registry.bucket, MODEL, tmp_path / "models")
    assert path is not None and path.read_text() == "5"
    assert (path.parent / models.PROMOTION).read_bytes() == promotion.to_bytes()


def test_a_store_that_does_not_answer_is_no_reason_to_serve_the_shipped_file(tmp_path: Path, monkeypatch):
    from layers.objects import client

    monkeypatch.setattr(client, "PAUSES_S", (0.0,))
    with client.S3Client("http://127.0.0.1:9", "a", "b") as nobody, pytest.raises(StoreUnavailable):
        models.fetch(nobody, "models", MODEL, tmp_path)


@pytest.mark.parametrize(
    "key",
    [
        "tiny-model/promotions/1-45ae8c5b00000000.json",
        "tiny-model/promotions/00000001-45AE8C5B00000000.json",
        "tiny-model/promotions/00000001-45ae8c5b00000000.json.bak",
        "tiny-model/promotions/serving/00000001-45ae8c5b00000000.json",
        "tiny-model/promotions/a/b/00000001-45ae8c5b00000000.json",
        "Tiny/promotions/00000001-45ae8c5b00000000.json",
        "promotions/00000001-45ae8c5b00000000.json",
    ],
)
def test_other_keys_are_no_promotions(key: str):
    assert models.read_place(key) is None


def test_the_highest_number_serves_and_among_equals_the_highest_version():
    low, high = f"{1:016x}", f"{2:016x}"
    places = [
        models.Place(MODEL, models.SERVING, number, version) for number, version in ((2, low), (10, low), (9, high))
    ]
    assert models.latest(place.key for place in places) == places[1]
    tie = models.Place(MODEL, models.SERVING, 10, high)
    assert models.latest([place.key for place in [tie, *places]]) == tie
    canary = models.Place(MODEL, "canary", 99, low)
    assert models.latest([canary.key, places[0].key]) == places[0]
    assert models.latest([canary.key], "canary") == canary and models.latest([]) is None
