"""Showers come in, and by themselves they are simulated, prepared, gathered, learned from, judged, and generated."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fdl.apply import Endpoint, apply, services_on
from fdl.document import read_file
from fdl.plan import plan
from layers.learning.registry import Manifest, Registry
from tests.cluster import ROOT, Cluster, eventually, running_cluster

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
from tests.functions.calorimeter import bank_model

MODEL = "calorimeter-generator"
SHOWERS = 200
SIMULATE = {"energy_gev": [2, 4], "showers": SHOWERS, "seed": 11}
SMALL = {"steps": 20, "batch": 32, "width": 64, "blocks": 2}
LEARN = {"family": "two-stage", "parameters": SMALL, "evaluate_every": 10, "held_out": 0.35, "seed": 5}
"""What a training on so few showers is asked for."""
PATIENCE_S = 600.0


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the calorimeter twin, as `apply` deploys it; a model of a toy detector serves."""
    with running_cluster(tmp_path_factory.mktemp("twin")) as cluster:
        facts = cluster.facts
        client = Endpoint("dioscar", facts["api"], facts["oscar_username"], facts["oscar_password"]).client()
        results = list(apply(plan(read_file(ROOT / "fdl/calorimeter.yaml"), services_on(client)), client))
        assert [result.error for result in results if result.error] == []
        model = bank_model.write(tmp_path_factory.mktemp("model") / "bank.onnx")
        registry = Registry(cluster.s3)
        version = registry.add(Manifest.of(MODEL, model.read_bytes()), model)
        registry.promote(MODEL, version, force=True, reason="for a test")
        yield cluster


def succeeded(twin: Cluster, service: str, key: str) -> dict[str, Any]:
    """The job of that input, once it has succeeded."""

    def look() -> dict[str, Any] | None:
        for job in twin.jobs(service=service):
            if job["key"] == key and job["state"] in ("Succeeded", "Dead", "Cancelled"):
                return job
        return None

    job = eventually(look, PATIENCE_S, f"the end of {service} on {key}")
    assert job["state"] == "Succeeded", f"{job['reason']}\n{twin.job_log(job)}"
    return job


def variables(service: str) -> dict[str, str]:
    """The variables of a service in the shipped FDL."""
    document = read_file(ROOT / "fdl/calorimeter.yaml")
    (found,) = [one for one in document.services if one.name == service]
    return dict(found.environment.variables)


def test_an_unchanged_stream_starts_nothing(twin: Cluster) -> None:
    for seed in (1, 2):
        request = {**bank_model.REQUEST, "showers": 200, "seed": seed}
        name = f"same-{seed}.json"
        twin.put("calorimeter-simulate", f"in/{name}", json.dumps(request).encode())
        succeeded(twin, "calorimeter-simulate", f"in/{name}")
        root = twin.read("calorimeter-simulate", f"out/{name}.root")
        twin.put("calorimeter-monitor", f"in/{name}.root", root)
        succeeded(twin, "calorimeter-monitor", f"in/{name}.root")
        found = json.loads(twin.read("calorimeter-monitor", f"out/{name}.root.drift.json"))
        assert (found["judged"], found["alarm"], found["showers"]) == (True, False, 200)
    assert twin.jobs(service="calorimeter-train") == []
    assert not [key for key in twin.objects("calorimeter-monitor") if key.endswith(".train.json")]


@pytest.mark.slow
def test_two_hundred_showers_are_simulated_learned_from_judged_and_generated(twin: Cluster, tmp_path: Path) -> None:
    gather = {"bucket": "calorimeter-preprocess", "prefix": "out/tonight/", "suffix": ".h5", "objects": 1}
    schedule = {"service": "calorimeter-train", "gather": gather, "payload": LEARN}
    answer = twin.http.put(twin.url("/dioscar/v1/schedules"), json={"schedules": {"new-showers": schedule}})
    assert answer.ok, answer.text
    twin.put("calorimeter-simulate", "in/tonight/small.json", json.dumps(SIMULATE).encode())
    succeeded(twin, "calorimeter-preprocess", "in/tonight/small.json.root")
    (asked,) = eventually(lambda: twin.jobs(service="calorimeter-train"), PATIENCE_S, "the request for a training")
    assert twin.http.delete(twin.url("/dioscar/v1/schedules/new-showers")).ok
    succeeded(twin, "calorimeter-train", asked["key"])

    registry = Registry(twin.s3)
    serving = registry.serving(MODEL)
    assert serving is not None
    (version,) = set(registry.versions(MODEL)) - {serving.version}
    manifest = registry.manifest(MODEL, version)
    assert [entry["key"] for entry in manifest.data] == ["out/tonight/small.json.root.h5"]
    name = asked["key"].removeprefix("in/")
    assert twin.read("calorimeter-train", f"out/{name}.onnx") == twin.read(
        "models", f"{MODEL}/versions/{version}/model.onnx"
    )

    validation = succeeded(twin, "calorimeter-validate", f"in/{name}.validate.json")
    report = json.loads(twin.read("calorimeter-validate", f"out/{name}.validate.json.report.json"))
    assert report["candidate"]["version"] == version
    assert report["passed"] is False, "two hundred showers are too few to learn from, and to judge by"
    assert [reason["sentence"] for reason in report["reasons"] if not reason["passed"]]
    assert f"version {version} refused: " in twin.job_log(validation)
    assert [verdict.passed for verdict in registry.verdicts(MODEL, version)] == [False]
    assert registry.serving(MODEL) == serving, "what served is kept"

    registry.promote(MODEL, version, force=True, reason="to be generated with, in a test")
    request = {"energy_gev": [3.0], "theta_deg": [90.0], "showers": 5, "seed": 1}
    twin.put("calorimeter-generate", "in/some.json", json.dumps(request).encode())
    succeeded(twin, "calorimeter-generate", "in/some.json")
    with h5py.File(io.BytesIO(twin.read("calorimeter-generate", "out/some.json.h5"))) as made:
        assert made["ECAL"].shape == (5, 51, 51, 25) and np.isfinite(made["sum"][:]).all()

    twin.deploy("calorimeter-monitor", variables={**variables("calorimeter-monitor"), "TRAIN": json.dumps(LEARN)})
    beam = tmp_path / "beam.h5"
    beam.write_bytes(twin.read("calorimeter-preprocess", "out/tonight/small.json.root.h5"))
    with h5py.File(beam, "r+") as file:
        file["ECAL"][..., 7] = 0
        file["sum"][:] = file["ECAL"][:].sum(axis=(1, 2, 3), dtype=np.float64)
    twin.put("calorimeter-monitor", "in/beam/tuesday.h5", beam.read_bytes())
    succeeded(twin, "calorimeter-monitor", "in/beam/tuesday.h5")
    found = json.loads(twin.read("calorimeter-monitor", "out/beam/tuesday.h5.drift.json"))
    assert found["alarm"] and "layer 7 reads nothing" in found["causes"]
    succeeded(twin, "calorimeter-train", "in/beam/tuesday.h5.train.json")
    succeeded(twin, "calorimeter-validate", "in/beam/tuesday.h5.train.json.validate.json")
    (other,) = set(registry.versions(MODEL)) - {version, serving.version}
    adapted = registry.manifest(MODEL, other)
    assert adapted.parent == version and adapted.request["parameters"]["start"] == "serving"
    assert adapted.data[0]["key"].startswith(f"{MODEL}/drifted/")
    assert registry.serving(MODEL).version == version, "what served is kept"
