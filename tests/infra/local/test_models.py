"""A promoted version serves from the next run on, in warm workers and in processes; none is dropped over it."""

import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
from minio import Minio

from layers.learning.registry import Manifest, Registry
from layers.runtime import models
from tests.cluster import PATIENCE_S, TWIN, Cluster, eventually, running_cluster
from tests.infra.local.isolation.walls import has_bubblewrap, walled

MODEL = "tiny-model"
VARIABLES = {"DIOSCAR_FUNCTION": "contract.serve"}
NUMBERS = count()
VARIABLE = "DIOSCAR_MODEL_TINY_MODEL"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("models")) as cluster:
        yield cluster


@pytest.fixture
def registry(cluster: Cluster) -> Registry:
    """One of the test's own."""
    return new_registry(cluster, f"registry-{next(NUMBERS)}")


def new_registry(cluster: Cluster, bucket: str) -> Registry:
    minio(cluster).make_bucket(bucket_name=bucket)
    return Registry(cluster.s3, bucket)


def minio(cluster: Cluster) -> Minio:
    address = cluster.facts["s3"].removeprefix("http://")
    return Minio(address, cluster.facts["minio_access_key"], cluster.facts["minio_secret_key"], secure=False)


def add(registry: Registry, weight: int, tmp: Path) -> str:
    """A version that multiplies by `weight`."""
    path = tmp / f"weight-{weight}"
    path.write_text(str(weight))
    return registry.add(Manifest.of(MODEL, path.read_bytes()), path)


def promote(registry: Registry, version: str) -> models.Promotion:
    return registry.promote(MODEL, version, force=True, reason="a test")


def deploy(cluster: Cluster, name: str, registry: Registry | None, **more: Any) -> str:
    variables = {
        **VARIABLES,
        **({"DIOSCAR_REGISTRY": registry.bucket} if registry else {}),
        **more.pop("variables", {}),
    }
    cluster.deploy(name, variables=variables, **more)
    return name


def answer(cluster: Cluster, name: str) -> int:
    """What `/run` makes of 1: the weight of the model that served."""
    response = cluster.run(name, b"1")
    assert response.status_code == 200, response.text
    return int(_decoded(response))


def _decoded(response: requests.Response) -> bytes:
    return base64.b64decode(response.content)


def served(cluster: Cluster, name: str, key: str) -> tuple[int, str]:
    """What a job makes of 1, and the model's SHA-256 in its record."""
    cluster.put(name, f"in/{key}", b"1")
    for prefix in (f"out/_runs/{key}/", f"out/{key}.out"):
        eventually(lambda prefix=prefix: list(cluster.s3.list(name, prefix)), what=prefix)
    outputs = cluster.objects(name, "out/")
    (record,) = (json.loads(data) for key_, data in outputs.items() if key_.startswith(f"out/_runs/{key}/"))
    return int(outputs[f"out/{key}.out"]), record["models"][MODEL]


@pytest.mark.parametrize("executor", ["warm", "process"])
def test_a_promoted_version_serves_the_next_run(cluster: Cluster, registry: Registry, tmp_path: Path, executor: str):
    name = deploy(cluster, f"next-{executor}", registry, annotations={"dioscar/executor": executor})
    one, two = add(registry, 5, tmp_path), add(registry, 7, tmp_path)
    assert answer(cluster, name) == 3, "the shipped file serves"

    promote(registry, one)
    assert answer(cluster, name) == 5
    assert served(cluster, name, "a") == (5, Manifest.of(MODEL, b"5").sha256)
    promote(registry, two)
    assert answer(cluster, name) == 7
    registry.rollback(MODEL)
    assert served(cluster, name, "b") == (5, Manifest.of(MODEL, b"5").sha256)
    assert answer(cluster, name) == 5


def test_the_worker_stays(cluster: Cluster, registry: Registry, tmp_path: Path):
    name = deploy(cluster, "stays", registry)
    assert answer(cluster, name) == 3
    (before,) = (worker for worker in cluster.get("/dioscar/v1/status")["workers"] if worker["service"] == name)

    promote(registry, add(registry, 5, tmp_path))
    assert answer(cluster, name) == 5

    (after,) = (worker for worker in cluster.get("/dioscar/v1/status")["workers"] if worker["service"] == name)
    assert (after["pid"], after["served"]) == (before["pid"], before["served"] + 1)


def test_the_registry_without_a_name_is_the_bucket_models(cluster: Cluster, tmp_path: Path):
    name = deploy(cluster, "unnamed", None)
    assert answer(cluster, name) == 3
    registry = new_registry(cluster, "models")
    promote(registry, add(registry, 11, tmp_path))
    assert answer(cluster, name) == 11
    cluster.s3.delete("models", registry.history(MODEL)[-1].promotion.place.key)
    assert answer(cluster, name) == 3, "what is not promoted any more does not serve"


def test_the_function_finds_the_promotion_beside_the_file(cluster: Cluster, registry: Registry, tmp_path: Path):
    name = deploy(cluster, "beside", registry)
    promotion = promote(registry, add(registry, 5, tmp_path))
    answer(cluster, name)
    (found,) = (cluster.data / "models" / models_folder(registry)).rglob(models.PROMOTION)
    assert found.read_bytes() == promotion.to_bytes()


def test_what_the_fdl_pins_wins(cluster: Cluster, registry: Registry, tmp_path: Path):
    (tmp_path / "pinned").write_text("13")
    name = deploy(cluster, "pinned", registry, variables={VARIABLE: str(tmp_path / "pinned")})
    promote(registry, add(registry, 5, tmp_path))
    assert answer(cluster, name) == 13


def test_a_service_may_pin_an_alias(cluster: Cluster, registry: Registry, tmp_path: Path):
    name = deploy(cluster, "most", registry)
    canary = deploy(cluster, "canary", registry, variables={VARIABLE: "canary"})
    refused = cluster.run(canary, b"1")
    assert refused.status_code == 500 and "nothing was promoted as" in refused.text
    promote(registry, add(registry, 5, tmp_path))
    registry.promote(MODEL, add(registry, 7, tmp_path), alias="canary", force=True, reason="a try")
    assert (answer(cluster, name), answer(cluster, canary)) == (5, 7)
    registry.promote(MODEL, add(registry, 11, tmp_path), alias="canary", force=True, reason="another")
    assert (answer(cluster, name), answer(cluster, canary)) == (5, 11)


def test_a_promotion_of_what_is_missing_or_damaged_changes_nothing_and_is_told(
    cluster: Cluster, registry: Registry, tmp_path: Path
):
    name = deploy(cluster, "broken", registry)
    promote(registry, add(registry, 5, tmp_path))
    assert answer(cluster, name) == 5

    def forward(number: int, version: str, sha256: str) -> None:
        promotion = models.Promotion(MODEL, number, version, sha256)
        cluster.put(registry.bucket, promotion.place.key, promotion.to_bytes())

    def problem() -> str:
        (shelf,) = (one for one in cluster.get("/dioscar/v1/models")["registries"] if one["bucket"] == registry.bucket)
        (serving,) = shelf["serving"]
        assert (serving["model"], serving["version"]) == (MODEL, Manifest.of(MODEL, b"5").version)
        (problem,) = shelf["problems"]
        return str(problem["problem"])

    gone = Manifest.of(MODEL, b"17")
    forward(2, gone.version, gone.sha256)
    assert answer(cluster, name) == 5
    assert problem().endswith(f"{gone.version}/model.onnx: is not there; promote another version")
    assert gone.version in cluster.log and "goes on serving" in cluster.log

    bad = Manifest.of(MODEL, b"19")
    cluster.put(registry.bucket, models.model_key(MODEL, bad.version), b"nineteen")
    forward(3, bad.version, bad.sha256)
    assert answer(cluster, name) == 5
    assert "is damaged" in problem()
    cluster.put(registry.bucket, f"{MODEL}/promotions/00000004-{gone.version}.json", b"{")
    assert answer(cluster, name) == 5
    assert "is no promotion" in problem()

    cluster.put(registry.bucket, models.model_key(MODEL, bad.version), b"19")
    cluster.s3.delete(registry.bucket, f"{MODEL}/promotions/00000004-{gone.version}.json")
    assert answer(cluster, name) == 19, "once the version is whole, it serves"


def test_a_running_job_keeps_its_version(cluster: Cluster, registry: Registry, tmp_path: Path):
    twin = tmp_path / "mine" / "functions" / "slowly"
    twin.mkdir(parents=True)
    (twin / "read.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        f"MODELS = ({MODEL!r},)\n"
        "def run(source, destination, settings, job):\n"
        "    path = job.model(MODELS[0])\n"
        "    first = path.read_text()\n"
        "    print('reading', flush=True)\n"
        "    go = Path(source.read_text())\n"
        "    while not go.exists():\n"
        "        time.sleep(0.01)\n"
        "    (destination / 'read').write_text(first + ' ' + path.read_text())\n"
    )
    (twin / f"{MODEL}.onnx").write_text("3")
    variables = {"DIOSCAR_FUNCTION": "slowly.read", "PYTHONPATH": str(tmp_path / "mine")}
    name = deploy(cluster, "slowly", registry, variables=variables)
    promote(registry, add(registry, 5, tmp_path))
    go = tmp_path / "go"
    cluster.put(name, "in/a", str(go).encode())
    (job,) = eventually(lambda: cluster.jobs(service=name), what="the job")
    eventually(lambda: "reading" in cluster.job_log(job), what="the first look")

    for weight in (7, 11):
        promote(registry, add(registry, weight, tmp_path))
        answer_of_next(cluster, registry)
    go.touch()

    cluster.ended(name)
    assert cluster.objects(name, "out/read") == {"out/read": b"5 5"}
    folder = cluster.data / "models" / models_folder(registry)

    def kept() -> list[str]:
        return sorted(path.read_text() for path in folder.rglob(models.MODEL))

    eventually(lambda: kept() == ["11"], what="the end of what nobody uses any more")


def answer_of_next(cluster: Cluster, registry: Registry) -> int:
    """Have the cluster look: another service of the same registry runs."""
    return answer(cluster, deploy(cluster, "beside-slowly", registry))


def models_folder(registry: Registry) -> str:
    return hashlib.sha256(registry.bucket.encode()).hexdigest()[:16]


def test_no_request_is_dropped_or_served_by_another_version_while_promotions_go_back_and_forth(
    cluster: Cluster, registry: Registry, tmp_path: Path
):
    name = deploy(cluster, "load", registry)
    token = cluster.token(name)
    one, two = add(registry, 5, tmp_path), add(registry, 7, tmp_path)
    promote(registry, one)
    stop = threading.Event()
    wrong: list[str] = []
    answers: list[list[tuple[float, float, bytes]]] = [[] for _ in range(8)]
    spans: list[tuple[float, float, bytes]] = []
    puts = [0] * 2

    def call(number: int) -> None:
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {token}"
            while not stop.is_set():
                began = time.monotonic()
                response = session.post(cluster.url(f"/run/{name}"), data=b"MQ==", timeout=PATIENCE_S)
                ended = time.monotonic()
                if response.status_code != 200 or _decoded(response) not in (b"5", b"7"):
                    wrong.append(f"{response.status_code} {response.text}")
                answers[number].append((began, ended, _decoded(response)))

    def store(number: int) -> None:
        while not stop.is_set():
            cluster.s3.put(name, f"in/{number}-{puts[number]}", b"1")
            puts[number] += 1
            stop.wait(0.02)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(answers))]
    threads += [threading.Thread(target=store, args=(number,)) for number in range(len(puts))]
    for thread in threads:
        thread.start()
    try:
        for turn in range(8):
            version = (two, one)[turn % 2]
            before = [len(some) for some in answers]
            now = registry.rollback(MODEL) if turn % 4 == 3 else promote(registry, version)
            assert now.version == version
            since = time.monotonic()
            assert answer(cluster, name) == (7, 5)[turn % 2], "a run that starts after the promotion has its version"
            eventually(
                lambda before=before: all(len(some) > n + 1 for some, n in zip(answers, before, strict=True)),
                what="two answers for each client",
            )
            spans.append((since, time.monotonic(), (b"7", b"5")[turn % 2]))
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert wrong == []
    between = 0
    for began, ended, weight in (one for some in answers for one in some):
        for since, until, served_then in spans:
            if since < began and ended < until:
                between += 1
                assert weight == served_then
    assert between >= len(spans), "the clients had something to say of it"
    jobs = cluster.ended(name, sum(puts))
    assert {job["state"] for job in jobs} == {"Succeeded"} and len(jobs) == sum(puts)
    outputs = {key: data for key, data in cluster.objects(name, "out/").items() if key.endswith(".out")}
    assert len(outputs) == sum(puts) and set(outputs.values()) <= {b"5", b"7"}


def test_a_restarted_cluster_serves_what_was_promoted(tmp_path: Path):
    with running_cluster(tmp_path / "data") as cluster:
        registry = new_registry(cluster, "models")
        name = deploy(cluster, "again", None)
        promote(registry, add(registry, 5, tmp_path))
        assert answer(cluster, name) == 5
        cluster.kill()
        cluster.start()
        assert answer(cluster, name) == 5


def test_the_bucket_that_a_function_forwards_models_to_is_there(cluster: Cluster):
    variables = {"DIOSCAR_REGISTRY": "made-for-it", "FORWARD": "*.out -> made-for-it/tiny-model"}
    deploy(cluster, "maker", None, variables=variables)
    eventually(lambda: minio(cluster).bucket_exists(bucket_name="made-for-it"), what="the bucket")


@pytest.mark.skipif(not has_bubblewrap(), reason="bubblewrap is not here; infra/sandbox-env.sh")
@pytest.mark.parametrize("executor", ["warm", "process"])
def test_a_sandboxed_run_reads_its_models_and_no_others(tmp_path: Path, executor: str):
    with walled(tmp_path / "data", PYTHONPATH=str(TWIN)) as cluster:
        registry, other = new_registry(cluster, "models"), new_registry(cluster, "others")
        promote(other, add(other, 7, tmp_path))
        beside = deploy(cluster, "beside", other)
        name = deploy(cluster, "within", None, annotations={"dioscar/executor": executor})
        assert (answer(cluster, name), answer(cluster, beside)) == (3, 7)
        promote(registry, add(registry, 5, tmp_path))
        assert answer(cluster, name) == 5, "what is promoted while a worker lives is seen by it"
        path = next((cluster.data / "models" / models_folder(other)).rglob(models.MODEL))
        pinned = {"DIOSCAR_REGISTRY": "models", VARIABLE: str(path)}
        deploy(cluster, name, None, annotations={"dioscar/executor": executor}, variables=pinned)
        refused = cluster.run(name, b"1")
        assert refused.status_code == 500 and "is not at" in refused.text


def test_a_job_on_a_node_is_served_by_what_the_registry_says(cluster: Cluster, registry: Registry, tmp_path: Path):
    name = deploy(cluster, "away", registry, interlink_node_name="hpc")
    promote(registry, add(registry, 5, tmp_path))
    assert served(cluster, name, "a") == (5, Manifest.of(MODEL, b"5").sha256)
