"""Training, validation and promotion as one chain on the embedded cluster, and what serves afterwards."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fdl.apply import Endpoint, apply, services_on
from fdl.document import read_file
from fdl.plan import plan
from functions.pulsar import classifier
from functions.pulsar.gate import MODEL
from layers.learning.registry import Manifest, Registry
from layers.runtime.testing import call
from tests.cluster import ROOT, Cluster, running_cluster

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
from tests.functions.pulsar.candidates import SHIPPED, WEAK, with_thresholds

TINY = {"frames": 96, "epochs": 1, "validation_frames": 36, "batch": 24, "other_bands": 0.0, "seed": 3}


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the pulsar twin, as `apply` deploys it."""
    with running_cluster(tmp_path_factory.mktemp("twin")) as cluster:
        facts = cluster.facts
        client = Endpoint("dioscar", facts["api"], facts["oscar_username"], facts["oscar_password"]).client()
        results = list(apply(plan(read_file(ROOT / "fdl/pulsar.yaml"), services_on(client)), client))
        assert [result.error for result in results if result.error] == []
        yield cluster


def succeeded(twin: Cluster, service: str, count: int = 1) -> dict:
    """The newest job of a service, of which `count` have ended."""
    job = max(twin.ended(service, count, 180), key=lambda job: job["created"])
    assert job["state"] == "Succeeded", job["reason"] + twin.job_log(job)
    return job


def test_a_trained_model_becomes_a_version_and_is_sent_to_be_validated(twin: Cluster) -> None:
    twin.put("pulsar-train", "in/night/tiny.json", json.dumps(TINY).encode())
    succeeded(twin, "pulsar-train")
    registry = Registry(twin.s3)
    (name,) = registry.versions(MODEL)
    manifest = registry.manifest(MODEL, name)
    assert manifest.request["parameters"]["seed"] == 3 and manifest.request["name"] == "tiny.json"
    model = twin.read("models", f"{MODEL}/versions/{name}/model.onnx")
    assert model == twin.read("pulsar-train", "out/night/tiny.json.onnx")
    (validation,) = twin.jobs(service="pulsar-validate")
    assert validation["key"] == "in/night/tiny.json.validate.json"
    # its end takes as long as all the rest: the test below waits for it
    assert twin.http.post(twin.url(f"/dioscar/v1/jobs/{validation['id']}/cancel")).ok


@pytest.mark.slow
def test_a_trained_model_that_falls_short_is_validated_and_not_promoted(twin: Cluster) -> None:
    before = len(twin.jobs(service="pulsar-validate"))
    twin.put("pulsar-train", "in/short.json", json.dumps({**TINY, "seed": 4}).encode())
    succeeded(twin, "pulsar-validate", before + 1)
    report = json.loads(twin.read("pulsar-validate", "out/short.json.validate.json.report.json"))
    refused = {(reason["metric"], reason["check"]) for reason in report["reasons"] if not reason["passed"]}
    assert report["passed"] is False and ("exact_match", "floor") in refused
    name = report["candidate"]["version"]
    assert [verdict.passed for verdict in Registry(twin.s3).verdicts(MODEL, name)] == [False]
    assert name not in {served.promotion.version for served in Registry(twin.s3).history(MODEL)}


def test_a_better_version_is_promoted_and_serves_from_the_next_file_on(twin: Cluster, tmp_path: Path) -> None:
    registry = Registry(twin.s3)
    weak = tmp_path / "weak.onnx"
    weak.write_bytes(with_thresholds(**WEAK))
    registry.promote(MODEL, registry.add(Manifest.of(MODEL, weak.read_bytes()), weak), force=True, reason="a test")
    (tmp_path / "f.json").write_text(json.dumps({"kind": "frames", "frames": 9, "seed": 2}))
    assert call("pulsar.synthesise", tmp_path / "f.json", tmp_path).code == 0
    frames = (tmp_path / "f.json.h5").read_bytes()
    assert served(twin, "before.h5", frames, 1) == classifier.load(weak).sha256

    good = registry.add(Manifest.of(MODEL, SHIPPED.read_bytes()), SHIPPED)
    keys = [f"{MODEL}/versions/{good}/{file}" for file in ("model.onnx", "manifest.json")]
    request = {"frames": 900, "inputs": [{"bucket": "models", "key": key} for key in keys]}
    before = len(twin.jobs(service="pulsar-validate"))
    twin.put("pulsar-validate", "in/deep/er/good.json", json.dumps(request).encode())
    succeeded(twin, "pulsar-validate", before + 1)
    promotion = registry.serving(MODEL)
    assert promotion is not None
    assert (promotion.number, promotion.version, promotion.forced) == (2, good, False)
    assert promotion.previous == classifier.load(weak).sha256[:16]
    assert promotion.report == registry.verdicts(MODEL, good)[0].sha256
    assert served(twin, "after.h5", frames, 2) == classifier.load(SHIPPED).sha256


def served(twin: Cluster, name: str, frames: bytes, count: int) -> str:
    """The SHA-256 of the model that labelled some frames."""
    twin.put("pulsar-classify", f"in/{name}", frames)
    succeeded(twin, "pulsar-classify", count)
    return str(json.loads(twin.read("pulsar-classify", f"out/{name}.labels.json"))["model_sha256"])
