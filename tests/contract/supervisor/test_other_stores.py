"""Events of dCache, Onedata and S3, and outputs that go there: a small server stands in for dCache and Onedata."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.cluster import FUNCTION_SCRIPT, Cluster
from tests.contract.supervisor.cases import COPY, FAILED
from tests.contract.supervisor.store import CDMI, LOGIN, OPENSSL, PASSWORD, TOKEN, Store, serving
from tests.contract.supervisor.ways import CLUSTER, OSCAR, OURS, Case, Left, Ways, check, event

pytestmark = pytest.mark.skipif(not OPENSSL, reason="openssl is not installed")

NAME = "a b é.txt"
DCACHE = json.dumps({"event": {"name": NAME, "mask": ["IN_CREATE"]}, "subscription": "https://door/events/1"})
RECORD = {"objectKey": NAME, "objectId": "1", "eventTime": "2019-02-07T09:51:04.347823", "eventSource": "OneTrigger"}
ONEDATA = json.dumps({"Key": f"/SPACE/in/{NAME}", "Records": [RECORD]})
OWN = {"storage_provider": "minio.default", "path": "SERVICE/in"}
WEBDAV = {
    "input": [OWN, {"storage_provider": "webdav.dcache", "path": "deep/SERVICE/in"}],
    "output": [{"storage_provider": "webdav.dcache", "path": "deep/SERVICE/out", "suffix": [".txt", "env"]}],
    "storage_providers": {"webdav": {"dcache": {"hostname": "HOST", "login": LOGIN, "password": PASSWORD}}},
}
SPACE = {
    "output": [{"storage_provider": "onedata.one", "path": "SERVICE/out"}],
    "storage_providers": {"onedata": {"one": {"oneprovider_host": "HOST", "token": TOKEN, "space": "SPACE"}}},
}
ONE_FILE = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/got.txt"; : >"$TMP_OUTPUT_DIR/empty.txt"'
NESTED = f'mkdir "$TMP_OUTPUT_DIR/in"; cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/in/{NAME}"'
STORE_CASES = [
    Case(
        "a file in dCache",
        ONE_FILE,
        "job",
        Left(outputs={"/deep/SERVICE/out/got.txt": b"abc", "/deep/SERVICE/out/empty.txt": b""}),
        data=DCACHE.encode(),
        document=WEBDAV,
    ),
    Case(
        "what a script learns of a file in dCache",
        'echo "[${STORAGE_OBJECT_KEY##*/}] [${INPUT_FILE_PATH##*/}]"',
        "job",
        Left(printed=f"[{NAME}] [{NAME}]\n"),
        data=DCACHE.encode(),
        document=WEBDAV,
        printed=True,
        differs={OSCAR: ("more-variables", Left(printed=f"[] [{NAME}]\n\n"))},
    ),
    Case(
        "a nested file to dCache",
        NESTED,
        "job",
        Left(outputs={f"/deep/SERVICE/out/in/{NAME}": b"abc"}),
        data=DCACHE.encode(),
        document=WEBDAV,
        differs={OSCAR: ("webdav-folders", FAILED)},
    ),
    Case(
        "dCache, without an input for it",
        COPY,
        "job",
        FAILED,
        data=DCACHE.encode(),
        document={**WEBDAV, "input": [OWN]},
    ),
    Case(
        "a file in a space of Onedata",
        NESTED,
        "job",
        Left(outputs={f"{CDMI}/SPACE/SERVICE/out/in/{NAME}": b"abc"}),
        data=ONEDATA.encode(),
        document=SPACE,
        inputs=({"storage_provider": "onedata.one", "path": "in"},),
    ),
    Case(
        "a space that no provider has",
        COPY,
        "job",
        FAILED,
        data=ONEDATA.replace("SPACE", "OTHER").encode(),
        document=SPACE,
        inputs=({"storage_provider": "onedata.one", "path": "in"},),
    ),
    Case(
        "an event that another cluster passes on, with its store",
        COPY,
        "job",
        Left(outputs={"SERVICE/out/got": b"abc", "SERVICE/far/got": b"abc"}),
        data=json.dumps(
            {"storage_provider": "cluster-a", "event": json.dumps(event("SERVICE", "other/a.txt"))}
        ).encode(),
        objects={"other/a.txt": b"abc"},
        document={
            "output": [
                {"storage_provider": "minio.default", "path": "SERVICE/out"},
                {"storage_provider": "minio.cluster-a", "path": "SERVICE/far"},
            ],
            "storage_providers": {
                "minio": {
                    "cluster-a": {"endpoint": "ENDPOINT", "verify": False, "access_key": "KEY", "secret_key": "SECRET"}
                }
            },
        },
    ),
    Case(
        "an object in S3, and an output there",
        COPY,
        "job",
        Left(outputs={"SERVICE/s3/got": b"abc"}),
        data=json.dumps(event("SERVICE", "other/a.txt", source="aws:s3")).encode(),
        objects={"other/a.txt": b"abc"},
        document={
            "output": [{"storage_provider": "s3.default", "path": "SERVICE/s3"}],
            "storage_providers": {"s3": {"default": {"access_key": "KEY", "secret_key": "SECRET"}}},
        },
        ways=(OURS, OSCAR),  # whose own variables say where S3 is; a cluster goes to Amazon
    ),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with serving(tmp_path_factory.mktemp("store")) as server:
        server.add(f"{CDMI}/SPACE/in/{NAME}", b"abc")
        yield server


@pytest.fixture(scope="module")
def ways(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.environ["REQUESTS_CA_BUNDLE"] = str(store.certificate)
    cluster.start()
    made = Ways(cluster, tmp_path_factory.mktemp("ways"))
    made.elsewhere = store.files
    made.prepare = lambda service: store.add(f"/deep/{service}/in/{NAME}", b"abc")
    yield made
    made.close()
    cluster.stop()


def at(store: Store, case: Case, cluster: Cluster) -> Case:
    """The case with the store's address and the cluster's keys."""
    text = json.dumps(case.document).replace("HOST", store.host).replace("ENDPOINT", cluster.facts["s3"])
    text = text.replace('"KEY"', json.dumps(cluster.facts["minio_access_key"]))
    document: dict[str, Any] = json.loads(text.replace('"SECRET"', json.dumps(cluster.facts["minio_secret_key"])))
    return replace(case, document=document, environ={"REQUESTS_CA_BUNDLE": str(store.certificate)})


@pytest.mark.parametrize("case", STORE_CASES, ids=lambda case: case.name)
def test_every_way_leaves_what_the_table_says(ways: Ways, store: Store, case: Case) -> None:
    check(ways, at(store, case, ways.cluster))


@pytest.mark.parametrize("executor", ["warm", "process"])
def test_a_function_reads_from_dcache_and_writes_there(ways: Ways, store: Store, executor: str) -> None:
    case = Case(
        f"a function, {executor}",
        FUNCTION_SCRIPT,
        "job",
        Left(outputs={f"/deep/SERVICE/out/{NAME}.copy": b"abc", f"/deep/SERVICE/out/deeper/{NAME}.txt": b"hello"}),
        data=DCACHE.encode(),
        document={
            **WEBDAV,
            "output": [{"storage_provider": "webdav.dcache", "path": "deep/SERVICE/out", "suffix": [".copy", ".txt"]}],
            "environment": {"variables": {"DIOSCAR_FUNCTION": "contract.copy"}},
            "annotations": {"dioscar/retries": "0", "dioscar/executor": executor},
        },
        ways=(CLUSTER,),
    )
    check(ways, at(store, case, ways.cluster))


@pytest.mark.parametrize("way", [OURS, CLUSTER])
@pytest.mark.parametrize(
    "login, sentence",
    [("stranger", "answered 401"), ("", "storage_providers.webdav.dcache.login: is empty; fill it in")],
)
def test_a_store_that_refuses_is_named(ways: Ways, store: Store, way: str, login: str, sentence: str) -> None:
    case = at(store, STORE_CASES[0], ways.cluster)
    document = json.loads(json.dumps(case.document).replace(f'"{LOGIN}"', f'"{login}"'))
    left = ways.run(replace(case, document=document, printed=True), way)
    assert not left.ended
    assert sentence in f"{left.printed} {ways.reason}"
    assert "Traceback" not in f"{left.printed}"
