"""A version that is as good as the truth is sent to be judged, promoted, and generated with, by events alone."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest

from fdl.document import read_file
from functions.calorimeter.generator import MODEL
from layers.learning.registry import Manifest, Registry
from layers.runtime.function import sha256_of
from tests.cluster import ROOT, TWIN, Cluster

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
from tests.functions.calorimeter.validated import nature, small_model

MANY = 2400
BY_FEW = f"""\
from functions.calorimeter import gate
from functions.calorimeter.validate import MODELS, Request, Settings, run
from functions.calorimeter.validation import bands, cells

whole = gate.gate
gate.gate = lambda: whole({MANY})
bands.PARTS, bands.RESAMPLES = 1, 20
cells.HIDDEN, cells.EPOCHS, cells.RATE = 32, 12, 2e-3
"""
"""`calorimeter.validate` with a gate for fewer showers of a small detector, as in test_validate.py."""


@pytest.fixture
def twin(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster whose validation asks for fewer showers; all else is as the twin's FDL says."""
    folder = tmp_path / "twin"
    (folder / "functions/judged").mkdir(parents=True)
    (folder / "functions/judged/by_few.py").write_text(BY_FEW)
    cluster = Cluster(tmp_path / "data")
    cluster.environ = {"PYTHONPATH": os.pathsep.join((str(TWIN), str(folder)))}
    cluster.start()
    try:
        given = {one.name: dict(one.environment.variables) for one in read_file(ROOT / "fdl/calorimeter.yaml").services}
        judged = {"DIOSCAR_FUNCTION": "judged.by_few", "GEOMETRY": "small"}
        cluster.deploy("calorimeter-validate", variables={**given["calorimeter-validate"], **judged})
        cluster.deploy("calorimeter-generate", variables=given["calorimeter-generate"])
        yield cluster
    finally:
        cluster.stop()


def version_that_makes_it(twin: Cluster, name: str, count: int) -> str:
    request = {"energy_gev": [20.0], "theta_deg": [90.0], "showers": 4, "seed": 1}
    twin.put("calorimeter-generate", f"in/{name}.json", json.dumps(request).encode())
    job = max(twin.ended("calorimeter-generate", count, 300), key=lambda job: job["created"])
    assert job["state"] == "Succeeded", job["reason"] + twin.job_log(job)
    with h5py.File(io.BytesIO(twin.read("calorimeter-generate", f"out/{name}.json.h5"))) as made:
        return str(json.loads(made.attrs["simulation"])["model"]["version"])


@pytest.mark.slow
def test_what_passes_its_gate_serves_from_the_next_request_on(twin: Cluster, tmp_path: Path) -> None:
    registry = Registry(twin.s3)
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(small_model(0.9))
    before = registry.add(Manifest.of(MODEL, wrong.read_bytes()), wrong)
    registry.promote(MODEL, before, force=True, reason="a test")
    assert version_that_makes_it(twin, "before", 1) == before

    unseen, seen = nature(tmp_path / "unseen.h5", MANY, 1), nature(tmp_path / "seen.h5", MANY, 2)
    for path in (unseen, seen):
        twin.put("calorimeter-validate", f"showers/{path.name}", path.read_bytes())
    right = tmp_path / "right.onnx"
    right.write_bytes(small_model())
    data = [{"bucket": "calorimeter-validate", "key": "showers/seen.h5", "sha256": sha256_of(seen)}]
    after = registry.add(Manifest.of(MODEL, right.read_bytes(), data=data), right)
    inputs = [
        {"bucket": "models", "key": f"{MODEL}/versions/{after}/{file}"} for file in ("model.onnx", "manifest.json")
    ]
    inputs += [{"bucket": "calorimeter-validate", "key": f"showers/{path.name}"} for path in (unseen, seen)]
    request = {"showers": MANY, "seed": 1, "inputs": inputs}
    twin.put("calorimeter-validate", "in/new.json.validate.json", json.dumps(request).encode())
    (job,) = twin.ended("calorimeter-validate", 1, 600)
    assert job["state"] == "Succeeded", job["reason"] + twin.job_log(job)
    promotion = registry.serving(MODEL)
    assert promotion is not None and (promotion.version, promotion.forced) == (after, False), twin.job_log(job)
    assert promotion.report == registry.verdicts(MODEL, after)[0].sha256
    assert version_that_makes_it(twin, "after", 2) == after
