"""A request dropped into a bucket comes out as prepared showers, on the embedded cluster, as `apply` deploys it."""

import io
import json
from pathlib import Path

import h5py

from fdl.apply import Endpoint, apply, services_on
from fdl.document import read_file
from fdl.plan import plan
from tests.cluster import ROOT, running_cluster


def test_a_request_becomes_prepared_showers(tmp_path: Path) -> None:
    with running_cluster(tmp_path) as cluster:
        facts = cluster.facts
        client = Endpoint("dioscar", facts["api"], facts["oscar_username"], facts["oscar_password"]).client()
        results = list(apply(plan(read_file(ROOT / "fdl/calorimeter.yaml"), services_on(client)), client))
        assert [result.error for result in results if result.error] == []
        request = {"energy_gev": [1, 2], "showers": 6, "seed": 2}
        cluster.put("calorimeter-simulate", "in/today/first.json", json.dumps(request).encode())
        for service in ("calorimeter-simulate", "calorimeter-preprocess"):
            (job,) = cluster.ended(service, 1, 120)
            assert job["state"] == "Succeeded", job["reason"] + cluster.job_log(job)
        made = cluster.read("calorimeter-preprocess", "out/today/first.json.root.h5")
        with h5py.File(io.BytesIO(made)) as file:
            assert file["ECAL"].shape == (6, 51, 51, 25)
            assert json.loads(file.attrs["simulation"])["engine"] == "geant4"
