"""The protocol as interLink's API server speaks it, against literal JSON."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.hpc.batch import BatchState
from infra.hpc.protocol import CreateRequest, PodRefused, Secret
from tests.infra.hpc.plugin.fake import INIT, MAIN, OSCAR, UID, Client, oscar_pod, serving


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Client]:
    with serving(tmp_path) as client:
        yield client


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A plugin without pods, for what it refuses."""
    with serving(tmp_path_factory.mktemp("plugin")) as client:
        yield client


def test_oscars_pod_is_understood_whole() -> None:
    request = CreateRequest.model_validate_json(OSCAR.read_bytes())
    assert [container.name for container in request.pod.spec.init_containers] == [INIT]
    [container] = request.pod.spec.containers
    assert container.env[3].name == "RESOURCE_ID" and container.env[3].value == "" and container.env[3].value_from
    assert request.container[0].config_maps == [] and request.container[0].empty_dirs == []
    holds = request.container[1]
    assert holds.config_maps[0].files()["script.sh"] == b"#!/bin/sh\necho hello\n"
    assert holds.config_maps[1].files() == {"weights.bin": b"\x00\x01\x02\xff"}
    assert holds.projected_volume_maps[0].metadata.name == "kube-api-access-8xk2p"
    assert holds.secrets[0].files() == {"accessKey": b"minio", "secretKey": b"secret"}
    assert [volume.kind for volume in request.pod.spec.volumes] == ["emptyDir", "configMap", "secret"]


def test_what_goes_out_has_the_keys_that_came_in() -> None:
    literal = json.loads(OSCAR.read_bytes())
    sent = CreateRequest.model_validate(literal).wire()
    assert set(sent) == set(literal)
    assert set(sent["container"][1]) == set(literal["container"][1])
    assert sent["pod"]["metadata"]["generateName"] == literal["pod"]["metadata"]["generateName"]


def test_null_and_absent_lists_are_empty() -> None:
    request = CreateRequest.model_validate_json(
        '{"pod": {"metadata": {"name": "a", "namespace": "n", "uid": "u", "labels": null, "annotations": null},'
        ' "spec": {"initContainers": null, "volumes": null, "containers": [{"name": "c", "image": "i", "command": null,'
        ' "args": null, "env": null, "envFrom": null, "volumeMounts": null, "resources": null}]}, "status": {}},'
        ' "container": null, "jobConfig": {}}'
    )
    [container] = request.pod.spec.containers
    assert (container.command, container.env, container.volume_mounts, request.container) == ([], [], [], [])


def test_a_kind_of_volume_that_is_not_known_keeps_its_name() -> None:
    literal = oscar_pod()
    literal["pod"]["spec"]["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "d"}})
    assert CreateRequest.model_validate(literal).pod.spec.volumes[-1].kind == "persistentVolumeClaim"


def test_a_secret_that_is_no_base64_is_refused() -> None:
    with pytest.raises(PodRefused, match=r"Secret s: data\.k: is no base64"):
        Secret.model_validate({"metadata": {"name": "s"}, "data": {"k": "not base64!"}}).files()


def test_create_answers_one_object_with_the_pods_uid(plugin: Client) -> None:
    reply = plugin.create(OSCAR.read_bytes())
    assert (reply.status_code, reply.json()) == (200, {"PodUID": UID, "PodJID": "1"})


def test_the_ping_is_an_empty_list_and_answers_totals(idle: Client) -> None:
    reply = idle.send("GET", "/status", "[]")
    assert reply.status_code == 200
    assert reply.json() == {
        "status": "ok",
        "resources": {
            "cpu": "128",
            "memory": str(256 << 30),
            "pods": "1000",
            "accelerators": [{"resourceType": "nvidia.com/gpu", "available": "6"}],
        },
    }


def test_a_list_that_go_writes_as_null_is_a_ping(idle: Client) -> None:
    assert idle.send("GET", "/status", "null").json() == idle.status().json()


def test_the_ping_fails_where_the_batch_system_is_away(plugin: Client) -> None:
    plugin.batch.fault("down")
    reply = plugin.send("GET", "/status", "[]")
    assert reply.status_code == 503 and "Unable to contact" in reply.text


def test_status_answers_a_pod_as_kubernetes_has_it(plugin: Client) -> None:
    body = oscar_pod()
    plugin.create(body)
    plugin.batch.set("1", BatchState.RUNNING)
    plugin.run(0, None)
    assert set(plugin.state(body["pod"])) <= {"running", "waiting"}
    plugin.run(0, 0)
    plugin.batch.set("1", BatchState.COMPLETED)
    assert plugin.ended(body["pod"])["exitCode"] == 0
    [status] = plugin.status(body["pod"]).json()
    assert (status["name"], status["UID"], status["namespace"], status["JID"]) == (
        body["pod"]["metadata"]["name"],
        UID,
        "oscar-svc",
        "1",
    )
    [container] = status["containers"]
    assert container["name"] == MAIN and container["image"] == "docker://ghcr.io/dioscar/dioscar-pulsar:0.1.0"
    end = container["state"]["terminated"]
    assert end["startedAt"].endswith("Z") and end["finishedAt"].endswith("Z") and end["reason"] == "Completed"
    assert [one["name"] for one in status["initContainers"]] == [INIT]


def test_status_answers_each_pod_of_the_list(plugin: Client) -> None:
    uids = [UID, UID.replace("0d5a", "1d5a")]
    for uid in uids:
        assert plugin.create(oscar_pod(uid)).status_code == 200
    statuses = plugin.status(*(oscar_pod(uid)["pod"] for uid in uids)).json()
    assert [status["UID"] for status in statuses] == uids


@pytest.mark.parametrize(
    ("method", "route", "body", "says"),
    [
        ("POST", "/create", "[{}]", "/create: the body is a list; send one object"),
        ("POST", "/create", "nonsense", "/create: Invalid JSON"),
        ("POST", "/create", "", "/create: Invalid JSON"),
        ("POST", "/create", "{}", "/create: pod: Field required"),
        ("POST", "/delete", "[]", "/delete: the body is a list; send one object"),
        ("GET", "/status", '{"metadata": {}}', "/status: the body is no list; send a list of pods, or [] as a ping"),
        ("GET", "/status", "[1]", "/status: 0: "),
        ("GET", "/getLogs", "[]", "/getLogs: the body is a list; send one object"),
        ("GET", "/getLogs", "{}", "/getLogs: PodUID: Field required"),
    ],
)
def test_a_wrong_body_gets_one_sentence(idle: Client, method: str, route: str, body: str, says: str) -> None:
    reply = idle.send(method, route, body)
    assert reply.status_code == 400
    assert reply.text.startswith(says) and "\n" not in reply.text
    assert reply.headers["content-type"].startswith("text/plain")


def test_an_error_never_shows_what_was_sent(idle: Client) -> None:
    body = oscar_pod()
    body["container"][1]["secrets"][0]["data"]["secretKey"] = ["hunter2"]
    reply = idle.create(body)
    assert reply.status_code == 400 and "secretKey" in reply.text and "hunter2" not in reply.text


def test_a_body_that_is_too_long_is_refused(idle: Client) -> None:
    reply = idle.send("GET", "/getLogs", b"{" + b" " * (65 << 10) + b"}")
    assert reply.status_code == 413 and reply.text == "the body is longer than 64 KiB"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("uid", "../../etc"), "pod.metadata.uid"),
        (("namespace", "a/b"), "pod.metadata.namespace"),
        (("uid", ""), "pod.metadata.uid"),
        (("name", ""), "pod.metadata.name: is missing"),
    ],
)
def test_names_that_are_no_file_names_are_refused(idle: Client, change: tuple[str, str], says: str) -> None:
    body = oscar_pod()
    body["pod"]["metadata"][change[0]] = change[1]
    reply = idle.create(body)
    assert reply.status_code == 422 and reply.text.startswith(says)
    assert list(idle.root.glob("*/")) == []


def test_containers_that_share_a_name_are_refused(idle: Client) -> None:
    body = oscar_pod()
    body["pod"]["spec"]["containers"][0]["name"] = INIT
    assert idle.create(body).text == f'pod.spec.containers: there are two named "{INIT}"'
