"""Train, validate, promote, serve: the chain of every twin, by the smallest one, here and on an interLink node."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from layers.learning.registry import Manifest, Registry
from tests.cluster import TWIN, Cluster, eventually, running_cluster

REGISTRY = "models/line"
CHAIN = {
    "line-predict": {"DIOSCAR_FUNCTION": "line.predict"},
    "line-validate": {
        "DIOSCAR_FUNCTION": "line.validate",
        "FORWARD": f"**/versions/*/reports/*.json -> {REGISTRY}; **/promotions/*.json -> {REGISTRY}",
    },
    "line-train": {
        "DIOSCAR_FUNCTION": "line.train",
        "FORWARD": f"**/versions/*/model.onnx -> {REGISTRY}; **/versions/*/manifest.json -> {REGISTRY}; "
        "*.validate.json -> line-validate/in",
    },
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("line")) as cluster:
        for name, variables in CHAIN.items():
            cluster.deploy(name, variables=variables)
        yield cluster


def trained(cluster: Cluster, name: str, **request: Any) -> dict[str, Any]:
    """The report on what a request gave."""
    cluster.put("line-train", f"in/{name}", json.dumps(request).encode())
    key = f"in/{name}.validate.json"

    def look() -> dict[str, Any] | None:
        dead = [job for job in cluster.jobs(service="line-train") if job["state"] == "Dead"]
        assert not dead, cluster.job_log(dead[0])
        return next(
            (job for job in cluster.jobs(service="line-validate", state="Succeeded") if job["key"] == key), None
        )

    eventually(look, 180, f"the validation of {name}")
    return json.loads(cluster.read("line-validate", f"out/{name}.validate.json.report.json"))


def predicted(cluster: Cluster, name: str, x: float) -> dict[str, Any]:
    cluster.put("line-predict", f"in/{name}", str(x).encode())
    eventually(
        lambda: [job for job in cluster.jobs(service="line-predict", state="Succeeded") if job["key"] == f"in/{name}"]
    )
    return json.loads(cluster.read("line-predict", f"out/{name}.json"))


def test_what_is_better_serves_and_what_is_not_does_not(cluster: Cluster) -> None:
    registry = Registry(cluster.s3)
    assert predicted(cluster, "before", 1.0)["y"] == pytest.approx(2.7)
    first = trained(cluster, "a/first.json", points=2000)
    assert first["passed"], [reason["sentence"] for reason in first["reasons"]]
    after = predicted(cluster, "after", 1.0)
    assert after["y"] == pytest.approx(3.0, abs=0.1) and after["version"] == first["candidate"]["version"]

    worse = trained(cluster, "worse.json", points=3, seed=5)
    assert not worse["passed"] and worse["metrics"][0]["difference"]["low"] > 0
    noise = trained(cluster, "noise.json", points=2100, seed=7)
    assert not noise["passed"]
    (sentence,) = [reason["sentence"] for reason in noise["reasons"] if not reason["passed"]]
    assert "it may be noise" in sentence
    assert predicted(cluster, "still", 1.0) == after
    assert [served.promotion.version for served in registry.history("line")] == [after["version"]]
    assert len(registry.versions("line")) == 3, "versions that were refused are kept, with their reports"


def test_what_is_trained_on_an_interlink_node_is_promoted_here(cluster: Cluster) -> None:
    registry = Registry(cluster.s3)
    shipped = TWIN / "functions/line/line.onnx"
    weak = registry.add(Manifest.of("line", shipped.read_bytes()), shipped)
    number = registry.promote("line", weak, force=True, reason="something to be better than").number
    cluster.deploy("line-train", variables=CHAIN["line-train"], interlink_node_name="hpc")
    report = trained(cluster, "far.json", points=2200, seed=9)
    assert report["passed"], [reason["sentence"] for reason in report["reasons"]]
    serving = registry.serving("line")
    assert serving is not None
    assert (serving.number, serving.version) == (number + 1, report["candidate"]["version"])
    assert predicted(cluster, "far", 1.0)["version"] == serving.version
