"""Showers by HTTP and by bucket, from the service as `apply` deploys it, by the model that the registry lets serve."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from fdl.apply import Endpoint, apply, services_on
from fdl.document import read_file
from fdl.plan import plan
from functions.calorimeter.geometry import geometry_from_json
from functions.calorimeter.hdf5 import ShowersHdf5
from functions.calorimeter.showers import join
from layers.learning.registry import Manifest, Registry
from tests.cluster import ROOT, Cluster, running_cluster
from tests.functions.calorimeter.tiny_model import tiny_model

NAME = "calorimeter-generate"
LAYER = {"count": 4, "absorber": "W", "absorber_mm": 2, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 20}
SMALL = geometry_from_json({"name": "small", "cells": 15, "cell_mm": 5, "layers": [LAYER]}, "small")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the twin's services; a tiny model is promoted."""
    folder = tmp_path_factory.mktemp("generate")
    with running_cluster(folder) as cluster:
        facts = cluster.facts
        client = Endpoint("dioscar", facts["api"], facts["oscar_username"], facts["oscar_password"]).client()
        results = list(apply(plan(read_file(ROOT / "fdl/calorimeter.yaml"), services_on(client)), client))
        assert [result.error for result in results if result.error] == []
        model = folder / "tiny.onnx"
        model.write_bytes(tiny_model(SMALL))
        registry = Registry(cluster.s3, "models")
        version = registry.add(Manifest.of("calorimeter-generator", model.read_bytes()), model)
        registry.promote("calorimeter-generator", version, force=True, reason="a test")
        yield cluster


def posted(cluster: Cluster, request: object) -> requests.Response:
    return cluster.invoke("run", NAME, json.dumps(request).encode())


def test_a_small_request_is_answered_with_the_showers(cluster: Cluster, tmp_path: Path) -> None:
    request = {"particle": "gamma", "energy_gev": [20, 50], "theta_deg": [90], "showers": 5, "seed": 3, "root": True}
    answers = [posted(cluster, request) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    first, second = (base64.b64decode(answer.content) for answer in answers)
    assert first == second
    path = tmp_path / "answer.h5"
    path.write_bytes(first)
    with ShowersHdf5(path) as file:
        showers = join(list(file.read()))
        assert (file.geometry, file.particle, file.about["engine"]) == (SMALL, "gamma", "model")
    assert len(showers) == 5 and showers.energy_gev.min() >= 20 and showers.visible_mev.min() > 100


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"energy_gev": [200]}, "energy_gev: 200 is outside of 10 to 100 GeV"),
        ({"particle": "pi-"}, "hadrons need data sets"),
        ({"geometry": "siw25"}, "the model is of small, and siw25 is asked for"),
        ({"showers": 10**9}, "split it into several requests"),
    ],
)
def test_what_cannot_be_made_is_refused_with_a_sentence(cluster: Cluster, request_: object, says: str) -> None:
    answer = posted(cluster, request_)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "InputError" and says in answer.json()["error"]["message"]


def test_a_request_in_the_mailbox_becomes_both_files(cluster: Cluster, tmp_path: Path) -> None:
    request = {"showers": 20, "root": True}
    cluster.put(NAME, "in/today/r.json", json.dumps(request).encode())
    (job,) = cluster.ended(NAME, 1)
    assert job["state"] == "Succeeded", job["reason"] + cluster.job_log(job)
    made = cluster.objects(NAME, "out/today/")
    assert sorted(made) == ["out/today/r.json.h5", "out/today/r.json.root"]
