"""The pulsar twin on the embedded cluster, in every way that people use it: buckets, FDL, HTTP, and training jobs."""

import base64
import gc
import json
import os
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from oscar_python.client import Client

from fdl.document import read_file
from fdl.split import split
from tests.cluster import ROOT, Cluster, eventually, running_cluster
from tests.contract.callers import boto
from tests.functions.pulsar.files import filterbank

LABELS = {
    "none",
    "pulse",
    "nbrfi",
    "bbrfi",
    "pulse+nbrfi",
    "pulse+bbrfi",
    "nbrfi+bbrfi",
    "pulse+nbrfi+bbrfi",
    "other",
}
OBSERVATION = {"seed": 5, "duration_s": 3.0, "pulses": 20, "nbrfi": 40, "bbrfi": 40}


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the pulsar twin, each service deployed by oscar-python from a file of its own."""
    with running_cluster(tmp_path_factory.mktemp("twin")) as cluster:
        facts = cluster.facts
        oscar = Client(
            {
                "cluster_id": "dioscar",
                "endpoint": facts["api"],
                "user": facts["oscar_username"],
                "password": facts["oscar_password"],
                "ssl": False,
            }
        )
        for path in split(read_file(ROOT / "fdl" / "pulsar.yaml"), tmp_path_factory.mktemp("split")):
            oscar.create_service(str(path))
        with warnings.catch_warnings():  # oscar-python does not close its connections
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        yield cluster


@pytest.fixture(scope="module")
def observation(twin: Cluster) -> dict[str, bytes]:
    """An observation with its truth, made by the service: `fil` and `truth.json`."""
    twin.put("pulsar-synthesise", "in/sky.json", json.dumps(OBSERVATION).encode())
    assert ended(twin, "pulsar-synthesise", "in/sky.json")["state"] == "Succeeded"
    return {name: twin.read("pulsar-synthesise", f"out/sky.json.{name}") for name in ("fil", "truth.json")}


def ended(twin: Cluster, service: str, key: str) -> dict[str, Any]:
    """The job of a service on a key, once it has ended."""

    def look() -> dict[str, Any] | None:
        found = twin.jobs(service=service, bucket=service, key=key)
        return found[0] if found and found[0]["state"] in ("Succeeded", "Dead") else None

    return eventually(look, 120, f"{service} on {key}")


def by_boto3(twin: Cluster, key: str, data: bytes) -> None:
    client = boto(twin)
    client.put_object(Bucket="pulsar-preprocess", Key=key, Body=data)
    client.close()


def by_minio(twin: Cluster, key: str, data: bytes) -> None:
    facts = twin.facts
    client = Minio(
        endpoint=facts["s3"].removeprefix("http://"),
        access_key=facts["minio_access_key"],
        secret_key=facts["minio_secret_key"],
        secure=False,
    )
    client.put_object(bucket_name="pulsar-preprocess", object_name=key, data=BytesIO(data), length=len(data))
    client._http.clear()


@pytest.mark.parametrize("put", [by_boto3, by_minio])
def test_a_telescope_file_dropped_into_a_bucket_comes_out_labelled(
    twin: Cluster, observation: dict[str, bytes], put: Callable[[Cluster, str, bytes], None]
):
    name = f"{put.__name__}/sky 1 é.fil"
    put(twin, f"in/{name}", observation["fil"])
    job = ended(twin, "pulsar-classify", f"in/{name}.h5")
    assert job["state"] == "Succeeded", job["reason"]
    made = {output["key"].removeprefix(f"out/{name}.h5.") for output in job["outputs"]}
    assert {"labels.json", "summary.json", "kept.h5", "png"} <= made
    labels = json.loads(twin.read("pulsar-classify", f"out/{name}.h5.labels.json"))["frames"]
    truth = json.loads(observation["truth.json"])["frames"]
    assert [frame["index"] for frame in labels] == [frame["index"] for frame in truth]
    assert {frame["label"] for frame in labels} <= LABELS
    summary = json.loads(twin.read("pulsar-classify", f"out/{name}.h5.summary.json"))
    assert summary["events"], "an observation with pulses has events"
    assert twin.read("pulsar-classify", f"out/{name}.h5.png").startswith(b"\x89PNG")


def test_every_result_can_be_traced_to_its_raw_file(twin: Cluster, observation: dict[str, bytes]):
    twin.put("pulsar-preprocess", "in/traced.fil", observation["fil"])
    last = ended(twin, "pulsar-classify", "in/traced.fil.h5")
    record_of = {
        service: json.loads(twin.read(service, next(o["key"] for o in outputs if "/_runs/" in o["key"])))
        for service, outputs in (
            ("pulsar-classify", last["outputs"]),
            ("pulsar-preprocess", ended(twin, "pulsar-preprocess", "in/traced.fil")["outputs"]),
        )
    }
    made = {output["sha256"] for output in record_of["pulsar-preprocess"]["outputs"]}
    assert record_of["pulsar-classify"]["input"]["sha256"] in made
    assert record_of["pulsar-classify"]["models"]


def test_frames_posted_to_run_are_answered_with_their_labels(twin: Cluster, observation: dict[str, bytes]):
    twin.put("pulsar-preprocess", "in/for-run.fil", observation["fil"])
    ended(twin, "pulsar-preprocess", "in/for-run.fil")
    frames = twin.read("pulsar-preprocess", "out/for-run.fil.h5")
    response = twin.run("pulsar-classify", frames)
    assert response.status_code == 200, response.text
    labels = json.loads(base64.b64decode(response.content))
    assert {frame["label"] for frame in labels["frames"]} <= LABELS


def test_a_training_is_accepted_at_once_and_ends_with_a_model(twin: Cluster):
    request = {"frames": 128, "epochs": 1, "validation_frames": 90, "seed": 3}
    response = twin.invoke("job", "pulsar-train", base64.b64encode(json.dumps(request).encode()))
    assert (response.status_code, response.text) == (201, "")
    job_id = response.headers["X-Dioscar-Job"]

    def look() -> dict[str, Any] | None:
        job = twin.job(job_id)
        return job if job["state"] in ("Succeeded", "Dead") else None

    job = eventually(look, 180, "the training")
    assert job["state"] == "Succeeded", job["reason"] + twin.job_log(job)
    keys = [output["key"] for output in job["outputs"]]
    assert any(key.endswith(".onnx") for key in keys)
    assert any(key.endswith(".metrics.json") for key in keys)


def real_file(name: str) -> bytes:
    folder = os.environ.get("DIOSCAR_TEST_DATA")
    if not folder:
        pytest.skip("DIOSCAR_TEST_DATA is not set: real telescope files are not here")
    return (Path(folder) / "pulsar" / name).read_bytes()


def test_the_fast_radio_burst_of_askap_is_kept_at_its_time(twin: Cluster):
    twin.put("pulsar-preprocess", "in/askap_frb180417.fil", real_file("askap_frb180417.fil"))
    assert ended(twin, "pulsar-classify", "in/askap_frb180417.fil.h5")["state"] == "Succeeded"
    summary = json.loads(twin.read("pulsar-classify", "out/askap_frb180417.fil.h5.summary.json"))
    assert len(summary["events"]) == 1
    assert abs(summary["events"][0]["time_s"] - 2.03) < 0.4
    assert abs(summary["events"][0]["dm_pc_cm3"] - 475.3) < 15


def test_noise_and_interference_of_parkes_hold_no_pulse(twin: Cluster):
    twin.put("pulsar-preprocess", "in/parkes_noise_rfi.fil", real_file("parkes_noise_rfi.fil"))
    assert ended(twin, "pulsar-classify", "in/parkes_noise_rfi.fil.h5")["state"] == "Succeeded"
    summary = json.loads(twin.read("pulsar-classify", "out/parkes_noise_rfi.fil.h5.summary.json"))
    assert summary["events"] == []


@pytest.mark.parametrize(
    "name, data, words",
    [
        ("no filterbank.fil", b"GIF89a" * 100, "no filterbank"),
        ("empty.fil", b"", "empty"),
        ("zero.fil", {"nchans": 0}, "0 channels"),
        ("float.fil", {"nbits": 32}, "32-bit float"),
        ("impossible.fil", {"tsamp": -1.0}, "sampling time"),
        ("truncated.fil", {"nsamples": 100_000}, "truncated"),
        ("naïve name.fil", b"HEADER_START", "naïve name.fil"),
    ],
)
def test_a_bad_telescope_file_is_one_sentence_and_the_cluster_goes_on(
    twin: Cluster, tmp_path: Path, name: str, data: bytes | dict[str, Any], words: str
):
    if isinstance(data, dict):
        data = filterbank(tmp_path / "bad.fil", b"x" * 512 * 256, **data).read_bytes()
    twin.put("pulsar-preprocess", f"in/{name}", data)
    job = ended(twin, "pulsar-preprocess", f"in/{name}")
    assert (job["state"], job["exit_code"], job["outputs"]) == ("Dead", 65, [])
    assert words in job["reason"]
    assert name in job["reason"]
    assert "Traceback" not in twin.job_log(job)
    assert twin.jobs(service="pulsar-classify", key=f"in/{name}.h5") == []
    assert twin.http.get(twin.url("/health")).text == "Ok"


def test_bytes_that_are_no_frames_are_refused_by_run(twin: Cluster):
    response = twin.run("pulsar-classify", b"no HDF5 at all")
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "InputError"
