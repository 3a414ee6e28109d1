"""What faas-supervisor 1.6 and 2 do otherwise than 1.5.8.

NOT RUN HERE: these versions are not on the package index. The fixtures were written after their sources (tags 1.6.2 and
2.0.1 of github.com/grycap/faas-supervisor), and say what our supervisor and the embedded cluster make of the same.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.notifications import Notification
from layers.runtime import storage
from layers.runtime.contract import InputError
from tests.cluster import Cluster
from tests.contract.supervisor.cases import COPY, FAILED
from tests.contract.supervisor.ways import CLUSTER, OURS, Case, Left, Ways, check, event

BOTH = (OURS, CLUSTER)
RUCIO = {"event_type": "close", "payload": {"scope": "username", "name": "dataset_name"}}
"""As in the docstring of faassupervisor/events/rucio.py, 2.0.1."""
STORE = {"endpoint": "http://127.0.0.1:9", "access_key": "hidden", "secret_key": "hidden", "region": "us-east-1"}


@pytest.fixture(scope="module")
def ways(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    made = Ways(cluster, tmp_path_factory.mktemp("ways"))
    yield made
    made.close()


def test_since_1_6_credentials_come_from_the_mount(tmp_path: Path) -> None:
    config = storage.config_of({"storage_providers": {"minio": {"default": STORE}}})
    assert storage.client(config, tmp_path) is None
    mount = tmp_path / "minio.default"
    mount.mkdir()
    (mount / "accessKey").write_text("key\n")
    (mount / "secretKey").write_text("secret\n")
    found = storage.client(config, tmp_path)
    assert found is not None and found.endpoint == STORE["endpoint"]


def test_since_1_6_a_pod_that_serves_run_answers_and_uploads_nothing(ways: Ways) -> None:
    document = {"storage_providers": {"minio": {"default": STORE}}}
    check(ways, Case("run, no keys", COPY, "run", Left(reply=b"hi"), data=b"aGk=", document=document, ways=(OURS,)))


def test_since_1_6_an_event_without_the_mount_is_the_input_and_here_it_is_an_error(ways: Ways) -> None:
    document = {"storage_providers": {"minio": {"default": STORE}}}
    case = Case("event, no keys", COPY, "upload", FAILED, data=b"abc", document=document, ways=(OURS,), printed=True)
    printed = ways.run(case, OURS).printed or ""
    assert printed.endswith("there are no credentials for the object storage minio.default here; mount minio.default\n")


@pytest.mark.parametrize("way", BOTH)
def test_in_2_outputs_go_to_the_bucket_of_the_events_user(ways: Ways, way: str) -> None:
    case = Case(
        "isolation",
        COPY,
        "job",
        Left(outputs={"SERVICE-user/out/got": b"abc"}),
        data=json.dumps(event("SERVICE-user", "in/a.txt")).encode(),
        document={
            "isolation_level": "USER",
            "bucket_list": ["SERVICE-user"],
            "output": [
                {"storage_provider": "minio.default", "path": "SERVICE/out"},
                {"storage_provider": "minio.default", "path": "SERVICE-user/none", "suffix": [".none"]},
            ],
        },
        objects={"SERVICE-user//in/a.txt": b"abc"},
    )
    assert ways.run(case, way) == case.left


def test_in_2_an_output_that_is_a_whole_bucket_stays() -> None:
    outputs = [{"storage_provider": "minio.default", "path": path} for path in ("a/out", "b")]
    document = {"isolation_level": "user", "bucket_list": ["u"], "output": outputs}
    found = storage.config_of(document).outputs_of(Notification("u", "in/x"))
    assert [(output.bucket, output.folder) for output in found] == [("u", "out"), ("b", "")]
    assert storage.config_of({**document, "isolation_level": "SERVICE"}).outputs_of(Notification("u", "in/x")) == (
        storage.config_of(document).outputs
    )


def test_in_2_rucio_names_a_data_identifier(ways: Ways) -> None:
    case = Case(
        "Rucio",
        'echo "[$STORAGE_OBJECT_KEY] [$INPUT_FILE_PATH] $EVENT"',
        "job",
        Left(printed=f"[dataset_name] [] {json.dumps(RUCIO)}\n"),
        data=json.dumps(RUCIO).encode(),
        document={"file_stage_in": True},
        printed=True,
        ways=BOTH,
    )
    check(ways, case)


@pytest.mark.parametrize("way", BOTH)
def test_in_2_rucio_is_downloaded_and_here_it_is_refused_in_a_sentence(ways: Ways, way: str) -> None:
    case = Case("Rucio's file", COPY, "job", FAILED, data=json.dumps(RUCIO).encode(), printed=True)
    left = ways.run(case, way)
    assert not left.ended
    assert "Rucio is not spoken here; set file_stage_in: true" in f"{left.printed} {ways.reason}"


def test_in_2_json_with_an_event_type_of_its_own_crashes_and_here_it_is_the_input(ways: Ways) -> None:
    body = b'{"event_type": "click"}'
    check(ways, Case("event_type", COPY, "run", Left(reply=body), data=body, ways=BOTH))


def test_in_2_names_lose_white_space_at_their_ends_and_here_they_keep_it(ways: Ways) -> None:
    script = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/ got "'
    check(ways, Case("white space", script, "upload", Left(outputs={"SERVICE/out/ got ": b"abc"}), b"abc", ways=BOTH))


@pytest.mark.parametrize(
    "document, sentence",
    [
        ({}, r"a\.txt: the event is dCache's; give the service an input webdav\.dcache"),
        ({"input": [{"storage_provider": "webdav.other", "path": "x"}]}, "give the service an input"),
    ],
)
def test_a_file_in_dcache_needs_its_folder(document: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        storage.config_of(document).located(Notification("", "a.txt", provider="webdav.dcache"))
