"""The webhook of another store: each version of an object has its jobs once, whoever tells of it and how often."""

import io
import json
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from oscar_python.client import Client

from infra.cli.main import main
from tests.cluster import eventually
from tests.infra.local.external.linked import TOKEN, Linked

COPY = 'cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"'
FUNCTION = {"DIOSCAR_FUNCTION": "contract.copy"}


def deploy(world: Linked, name: str, **more: object) -> None:
    """Deploy, and wait until the store tells of the new mailbox."""
    world.cluster.deploy(name, **more)  # type: ignore[arg-type]

    def is_told() -> object:
        return world.s3.get_bucket_notification_configuration(Bucket=name).get("QueueConfigurations")

    eventually(is_told, what="the rule for a new mailbox")


def event(bucket: str, key: str, name: str = "s3:ObjectCreated:Put") -> dict[str, object]:
    record = {"eventSource": "minio:s3", "eventName": name, "s3": {"bucket": {"name": bucket}, "object": {"key": key}}}
    return {"EventName": name, "Key": f"{bucket}/{key}", "Records": [record]}


def post(world: Linked, body: object, token: str = TOKEN) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.post(world.hook, data=data, headers=headers, timeout=30)


def test_an_upload_is_run_and_its_outputs_are_in_the_store(world: Linked):
    deploy(world, "ext-copy", variables=FUNCTION)
    world.s3.put_object(Bucket="ext-copy", Key="in/a b/é.txt", Body=b"data", Metadata={"who": "me"})
    (job,) = world.cluster.ended("ext-copy")
    assert (job["state"], job["key"]) == ("Succeeded", "in/a b/é.txt")
    assert world.read("ext-copy/out/a b/é.txt.copy") == b"data"
    assert {f"{o['bucket']}/{o['key']}" for o in job["outputs"]} == {
        f"ext-copy/{entry['Key']}" for entry in world.s3.list_objects_v2(Bucket="ext-copy", Prefix="out/")["Contents"]
    }
    assert world.list_now() == 0
    assert len(world.cluster.jobs(service="ext-copy")) == 1


def test_large_uploads_and_copies_are_one_job_each(world: Linked):
    deploy(world, "ext-large", script='wc -c < "$INPUT_FILE_PATH" > "$TMP_OUTPUT_DIR/$(basename "$INPUT_FILE_PATH")"')
    world.s3.upload_fileobj(io.BytesIO(bytes(9 << 20)), "ext-large", "in/parts")
    world.s3.copy_object(Bucket="ext-large", Key="in/copy", CopySource="ext-large/in/parts")
    world.s3.put_object(Bucket="ext-large", Key="elsewhere/x", Body=b"x")
    world.s3.put_object(Bucket="ext-large", Key="in/empty", Body=b"")
    jobs = world.cluster.ended("ext-large", 3)
    assert sorted(job["key"] for job in jobs) == ["in/copy", "in/empty", "in/parts"]
    assert {job["state"] for job in jobs} == {"Succeeded"}
    assert world.read("ext-large/out/parts").strip() == b"9437184"
    assert world.list_now() == 0
    assert len(world.cluster.jobs(service="ext-large")) == 3


def test_a_chain_runs_once_through_both_services(world: Linked):
    deploy(world, "ext-second", script=COPY)
    deploy(world, "ext-first", variables={**FUNCTION, "FORWARD": "*.copy -> ext-second/in"})
    for index in range(5):
        world.put(f"ext-first/in/{index}", str(index).encode())
    second = world.cluster.ended("ext-second", 5)
    world.cluster.ended("ext-first", 5)
    assert world.list_now() == 0
    first = world.cluster.jobs(service="ext-first")
    assert (len(first), len(world.cluster.jobs(service="ext-second"))) == (5, 5)
    assert [world.read(f"ext-second/out/{index}.copy") for index in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    metadata = world.s3.head_object(Bucket="ext-second", Key="in/0.copy")["Metadata"]
    made = next(job for job in first if job["key"] == "in/0")
    assert metadata == {
        "dioscar-producer": "ext-first",
        "dioscar-input": "ext-first/in/0",
        "dioscar-hops": "1",
        "dioscar-job": made["id"],
    }
    followed = [job["id"] for job in second if job["key"] == "in/0.copy"]
    assert world.cluster.job(made["id"])["triggered"] == followed


def test_a_loop_in_the_other_store_ends(world: Linked):
    variables = {**FUNCTION, "FORWARD": "*.copy -> ext-loop/in"}
    deploy(world, "ext-loop", variables=variables, annotations={"dioscar/loop": "ext-loop/in"})
    world.put("ext-loop/in/a")
    dead = eventually(lambda: world.cluster.jobs(service="ext-loop", state="Dead"))
    assert "the chain is a loop" in dead[0]["reason"]
    assert len(world.cluster.jobs(service="ext-loop")) == 33


def test_events_that_come_often_and_at_once_are_one_job(world: Linked):
    deploy(world, "ext-often", script=COPY)
    world.put("ext-often/in/a")
    with ExitStack() as stack:
        for _ in range(8):
            thread = threading.Thread(target=lambda: [post(world, event("ext-often", "in/a")) for _ in range(4)])
            thread.start()
            stack.callback(thread.join)
        world.list_now()
    world.cluster.ended("ext-often")
    assert world.list_now() == 0
    assert len(world.cluster.jobs(service="ext-often")) == 1
    world.put("ext-often/in/a", b"another version")
    world.cluster.ended("ext-often", 2)
    assert world.read("ext-often/out/a") == b"another version"
    assert len(world.cluster.jobs(service="ext-often")) == 2


def test_what_is_overwritten_before_it_runs_gives_way_to_the_newer(world: Linked, tmp_path: Path):
    go = tmp_path / "go"
    script = f"while [ ! -e {go} ]; do sleep 0.05; done; {COPY}"
    deploy(world, "ext-newer", script=script, annotations={"dioscar/concurrency": "1"})
    world.put("ext-newer/in/first")
    eventually(lambda: world.cluster.jobs(service="ext-newer", state="Running"))
    for version in (b"old", b"new"):
        before = len(world.cluster.jobs(service="ext-newer"))
        world.put("ext-newer/in/a", version)
        eventually(lambda before=before: len(world.cluster.jobs(service="ext-newer")) > before)  # type: ignore[misc]
    go.touch()
    world.cluster.ended("ext-newer", 3)
    newer, older = world.cluster.jobs(service="ext-newer", key="in/a")
    assert (older["state"], newer["state"]) == ("Cancelled", "Succeeded")
    assert older["reason"] == "overwritten meanwhile; the newer version has a job of its own"
    assert world.read("ext-newer/out/a") == b"new"


def test_a_request_gets_the_objects_that_it_names(world: Linked):
    deploy(world, "ext-request", variables={"DIOSCAR_FUNCTION": "contract.train"}, annotations={"dioscar/retries": "0"})
    world.s3.create_bucket(Bucket="ext-raw")
    for name, text in (("z.txt", b"zed"), ("run/b.txt", b"two"), ("run/a.txt", b"one"), ("run/c.bin", b"no")):
        world.put(f"ext-raw/{name}", text)
    zed = "c1bcf8d8b6e9a2c3"
    request = {
        "inputs": [
            {"bucket": "ext-raw", "key": "z.txt"},
            {"select": {"bucket": "ext-raw", "prefix": "run/", "suffix": ".txt"}},
        ],
        "steps": 1,
    }
    world.put("ext-request/in/r.json", json.dumps(request).encode())
    (job,) = world.cluster.ended("ext-request")
    assert job["state"] == "Succeeded", job["reason"]
    model = json.loads(world.read("ext-request/out/r.json.model"))
    assert (model["keys"], model["texts"]) == (["z.txt", "run/a.txt", "run/b.txt"], ["zed", "one", "two"])
    request["inputs"] = [{"bucket": "ext-raw", "key": "z.txt", "sha256": zed * 4}]
    world.put("ext-request/in/wrong.json", json.dumps(request).encode())
    world.cluster.ended("ext-request", 2)
    (wrong,) = world.cluster.jobs(service="ext-request", key="in/wrong.json")
    assert wrong["state"] == "Dead"
    assert "ext-raw/z.txt: has changed since the request named it" in wrong["reason"]


def test_an_input_that_changes_between_attempts_is_said(world: Linked, tmp_path: Path):
    go = tmp_path / "go"
    script = f"[ -e {go} ] || {{ touch {go}.not; exit 1; }}; {COPY}"
    deploy(world, "ext-changes", script=script, variables=FUNCTION, annotations={"dioscar/retries": "1"})
    world.s3.create_bucket(Bucket="ext-ensemble")
    world.put("ext-ensemble/a", b"one")
    request = {"inputs": [{"bucket": "ext-ensemble", "key": "a"}]}
    world.put("ext-changes/in/r.json", json.dumps(request).encode())
    eventually(Path(f"{go}.not").exists)
    world.put("ext-ensemble/a", b"another")
    go.touch()
    (job,) = world.cluster.ended("ext-changes")
    assert job["state"] == "Dead"
    assert "ext-ensemble/a: has been overwritten since it was asked for" in job["reason"]


def test_oscars_own_client_finds_the_other_store(world: Linked, tmp_path: Path):
    deploy(world, "ext-client", script=COPY)
    facts = world.cluster.facts
    options = {"cluster_id": "dioscar", "endpoint": facts["api"], "ssl": True}
    client = Client({**options, "user": facts["oscar_username"], "password": facts["oscar_password"]})
    assert client.get_cluster_config().json()["minio_provider"]["endpoint"] == world.gateway.url
    (tmp_path / "file.txt").write_text("by oscar-python")
    storage = client.create_storage_client("ext-client")
    storage.upload_file("minio.default", str(tmp_path / "file.txt"), "ext-client/in")
    world.cluster.ended("ext-client")
    assert world.read("ext-client/out/file.txt") == b"by oscar-python"


@pytest.mark.parametrize("token", ["", "wrong", f"{TOKEN}x"])
def test_a_wrong_token_is_refused_and_queues_nothing(world: Linked, token: str):
    deploy(world, "ext-token", script=COPY, input=[{"storage_provider": "minio.default", "path": "ext-token/quiet"}])
    world.s3.put_object(Bucket="ext-token", Key="loud/a", Body=b"x")
    answer = post(world, event("ext-token", "quiet/a"), token)
    assert answer.status_code == 401
    assert "is not the token" in answer.text
    assert world.cluster.jobs(service="ext-token") == []


@pytest.mark.parametrize(
    "body, status",
    [
        (b"{", 400),
        (b"[]", 400),
        (b'{"Records": [{"eventSource": "minio:s3"}]}', 400),
        (b"[" * 100_000, 400),
        (bytes(5 << 20), 413),
        (b"", 204),
        (event("ext-nobody", "in/a"), 204),
        (event("ext-odd", "in/not-there"), 204),
        (event("ext-odd", "in/folder/"), 204),
        (event("ext-odd", "in/a", "s3:ObjectRemoved:Delete"), 204),
        (event("ext-odd", "out/a"), 204),
    ],
)
def test_what_is_no_upload_to_a_mailbox_makes_no_job(world: Linked, body: object, status: int):
    deploy(world, "ext-odd", script=COPY)
    assert post(world, body).status_code == status
    assert world.cluster.jobs(service="ext-odd") == []


def test_what_failed_or_was_never_heard_of_runs_again(
    world: Linked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    script = f"[ -e {tmp_path}/mended ] || exit 1; {COPY}"
    records = 'R="$TMP_OUTPUT_DIR/_runs/${STORAGE_OBJECT_KEY#in/}"; mkdir -p "$R"; echo "{}" > "$R/1.json"'
    deploy(world, "ext-again", script=f"{script}; {records}", variables=FUNCTION, annotations={"dioscar/retries": "0"})
    world.put("ext-again/in/dead")
    assert world.cluster.ended("ext-again")[0]["state"] == "Dead"
    (tmp_path / "mended").touch()
    rules = world.s3.get_bucket_notification_configuration(Bucket="ext-again")["QueueConfigurations"]
    world.s3.put_bucket_notification_configuration(Bucket="ext-again", NotificationConfiguration={})
    world.put("ext-again/in/lost")
    wanted = {"QueueConfigurations": rules}
    world.s3.put_bucket_notification_configuration(Bucket="ext-again", NotificationConfiguration=wanted)
    command = ["replay", "--without-output", "--service", "ext-again", "--cluster", str(world.cluster.data), "--json"]
    assert main(command) == 0
    found = {one["key"]: one["job"] for one in json.loads(capsys.readouterr().out)["inputs"]}
    assert found["in/dead"] == "Dead"
    assert found.get("in/lost") is None  # the listing after the deployment may just have found it
    assert main([*command, "--yes"]) == 0
    assert json.loads(capsys.readouterr().out)["replayed"] in (1, 2)
    world.cluster.ended("ext-again", 3)
    assert (world.read("ext-again/out/dead"), world.read("ext-again/out/lost")) == (b"x", b"x")
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["inputs"] == []
    assert main(["replay", "--service", "ext-again", "--cluster", str(world.cluster.data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"replayed": 1}  # the dead job itself, of before
    assert world.list_now() == 0
    keys = [job["key"] for job in world.cluster.jobs(service="ext-again")]
    assert sorted(keys) in (["in/dead", "in/dead", "in/lost"], ["in/dead", "in/dead", "in/lost", "in/lost"])  # as above


def test_a_mailbox_that_two_services_share_outlives_the_first(world: Linked):
    deploy(world, "ext-shared", script=COPY)
    mailbox = [{"storage_provider": "minio.default", "path": "ext-shared/in"}]
    world.cluster.deploy("ext-sharer", script=COPY, input=mailbox)
    assert world.cluster.http.delete(world.cluster.url("/system/services/ext-shared")).status_code == 204
    world.put("ext-shared/in/a")
    world.cluster.ended("ext-sharer")
    assert world.read("ext-sharer/out/a") == b"x"


def test_the_status_says_where_the_objects_are(world: Linked, capsys: pytest.CaptureFixture[str]):
    deploy(world, "ext-status", script=COPY)
    eventually(lambda: world.health()["notified"])
    assert main(["status", "--cluster", str(world.cluster.data)]) == 0
    said = capsys.readouterr().out
    assert f"Objects are in {world.gateway.url}: its webhook and a listing tell of them, the last one " in said
    assert main(["config", "--cluster", str(world.cluster.data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["s3"] == world.gateway.url


def test_the_door_for_events_is_there_only_with_another_store(cluster):
    assert requests.post(cluster.url("/dioscar/v1/events"), data=b"{}", timeout=30).status_code == 404
