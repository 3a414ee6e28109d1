"""Webhooks: what happens in a bucket is posted to any URL, in order, whatever becomes of the cluster or the URL."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject
from minio.notificationconfig import NotificationConfig, QueueConfig

from infra.local.webhooks import BACKOFF_MOST_S, Target, WebhookError, pause_s, targets_of
from tests.cluster import COMMAND, Cluster, eventually, running_cluster
from tests.infra.local.receiver import Receiver, receiving

NAME = "MINIO_NOTIFY_WEBHOOK"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@contextmanager
def client(cluster: Cluster) -> Iterator[Minio]:
    address = cluster.facts["s3"].removeprefix("http://")
    keys = cluster.facts["minio_access_key"], cluster.facts["minio_secret_key"]
    minio = Minio(address, *keys, secure=False)
    yield minio
    minio._http.clear()


def notify(cluster: Cluster, bucket: str, *targets: str, prefix: str = "") -> None:
    with client(cluster) as minio:
        if not minio.bucket_exists(bucket):
            minio.make_bucket(bucket)
        rules = [
            QueueConfig(
                queue=f"arn:minio:sqs:us-east-1:{name}:webhook",
                events=["s3:ObjectCreated:*", "s3:ObjectRemoved:*"],
                config_id=name,
            )
            for name in targets
        ]
        minio.set_bucket_notification(bucket, NotificationConfig(queue_config_list=rules))


def configure(patch: pytest.MonkeyPatch, name: str, url: str, token: str = "") -> None:
    patch.setenv(f"{NAME}_ENABLE_{name}", "on")
    patch.setenv(f"{NAME}_ENDPOINT_{name}", url)
    if token:
        patch.setenv(f"{NAME}_AUTH_TOKEN_{name}", token)


def test_what_happens_is_posted_as_minio_posts_it(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(monkeypatch, "PRIMARY", receiver.url, "token")
    with running_cluster(tmp_path) as cluster:
        notify(cluster, "raw", "PRIMARY")
        cluster.put("raw", "in/a b.fil", b"hello")
        with client(cluster) as minio:
            minio.copy_object("raw", "copy", CopySource("raw", "in/a b.fil"))
            minio.remove_object("raw", "copy")
            assert not list(minio.remove_objects("raw", [DeleteObject("in/a b.fil")]))
        eventually(lambda: len(receiver.events) == 4)
        assert cluster.stop() == 0
    assert [(event["EventName"], event["Key"]) for event in receiver.events] == [
        ("s3:ObjectCreated:Put", "raw/in/a b.fil"),
        ("s3:ObjectCreated:Copy", "raw/copy"),
        ("s3:ObjectRemoved:Delete", "raw/copy"),
        ("s3:ObjectRemoved:Delete", "raw/in/a b.fil"),
    ]
    first = receiver.events[0]
    assert set(first) == {"EventName", "Key", "Records"} and len(first["Records"]) == 1
    assert first["Records"][0]["s3"]["object"]["key"] == "in%2Fa+b.fil"
    assert first["Records"][0]["s3"]["object"]["size"] == 5
    assert receiver.headers[0]["Authorization"] == "Bearer token"
    assert receiver.headers[0]["Content-Type"] == "application/json"
    assert set(receiver.paths) == {"/hook?a=b"} and len(receiver.connections) == 1


def test_only_2xx_counts_and_redirections_are_not_followed(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(monkeypatch, "a", receiver.url)
    receiver.answers = [500, 307, 404, 204]
    with running_cluster(tmp_path) as cluster:
        notify(cluster, "raw", "a")
        for index in range(20):
            cluster.put("raw", f"{index}", b"x")
        eventually(lambda: len(receiver.events) == 20)
        assert "webhook a: it answers 500; its events wait until it is back" in cluster.log
    assert receiver.keys() == [f"raw/{index}" for index in range(20)]
    assert len(receiver.paths) == 23 and set(receiver.paths) == {"/hook?a=b"}
    assert "Authorization" not in receiver.headers[0]


def waiting(cluster: Cluster) -> dict[str, int]:
    """What the cluster says of the queue, in its status and in its metrics, which must agree once it is at rest."""

    def shown() -> dict[str, int] | None:
        status = dict(cluster.get("/dioscar/v1/status")["webhooks"])
        text = cluster.http.get(cluster.url("/metrics")).text
        wanted = {f'dioscar_webhook_events{{target="{target}"}} {float(count)}' for target, count in status.items()}
        return status if wanted <= set(text.splitlines()) else None

    return eventually(shown)


def test_a_target_that_was_down_gets_everything_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with receiving() as first:
        port = first.port
    configure(monkeypatch, "a", f"http://127.0.0.1:{port}/hook")
    with running_cluster(tmp_path) as cluster:
        notify(cluster, "raw", "a")
        for index in range(50):
            cluster.put("raw", f"{index}", b"x")
        assert waiting(cluster) == {"a": 50}
        with receiving(port) as second:
            eventually(lambda: len(second.events) >= 50)
            eventually(lambda: waiting(cluster) == {"a": 0})
        assert second.keys() == [f"raw/{index}" for index in range(50)]


def test_what_was_queued_survives_kill_9(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with receiving() as first:
        configure(monkeypatch, "a", first.url)
        with running_cluster(tmp_path) as cluster:
            notify(cluster, "raw", "a")
            first.open.clear()
            for index in range(30):
                cluster.put("raw", f"{index}", b"x")
            cluster.s3.delete("raw", "29")
            cluster.kill()
    with receiving(first.port) as second, running_cluster(tmp_path):
        eventually(lambda: len(second.events) >= 31)
        time.sleep(0.2)
    assert second.keys() == [f"raw/{index}" for index in [*range(30), 29]]
    assert second.events[-1]["EventName"] == "s3:ObjectRemoved:Delete"


def test_delivered_events_are_not_delivered_again_after_a_restart(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(monkeypatch, "a", receiver.url)
    with running_cluster(tmp_path) as cluster:
        notify(cluster, "raw", "a")
        for index in range(30):
            cluster.put("raw", f"{index}", b"x")
        eventually(lambda: len(receiver.events) == 30)
    with running_cluster(tmp_path) as cluster:
        cluster.put("raw", "last", b"x")
        eventually(lambda: len(receiver.events) > 30)
    assert receiver.keys() == [*(f"raw/{index}" for index in range(30)), "raw/last"]


def test_a_slow_target_holds_up_neither_puts_nor_others_nor_the_end(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with receiving() as slow, running_two(monkeypatch, slow, receiver, tmp_path) as cluster:
        slow.open.clear()
        notify(cluster, "raw", "SLOW", "quick")
        began = time.monotonic()
        for index in range(50):
            cluster.put("raw", f"{index}", b"x")
        eventually(lambda: len(receiver.events) == 50)
        assert cluster.stop() == 0
        assert time.monotonic() - began < 15
        assert not slow.events
    assert receiver.keys() == [f"raw/{index}" for index in range(50)]


@contextmanager
def running_two(patch: pytest.MonkeyPatch, slow: Receiver, quick: Receiver, data: Path) -> Iterator[Cluster]:
    configure(patch, "SLOW", slow.url)
    configure(patch, "quick", quick.url)
    with running_cluster(data) as cluster:
        yield cluster


def test_a_service_and_a_webhook_hear_of_the_same_upload(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configure(monkeypatch, "a", receiver.url)
    with running_cluster(tmp_path) as cluster:
        notify(cluster, "hook-both", "a")
        cluster.deploy("hook-both", script='cp "$INPUT_FILE_PATH" "$TMP_OUTPUT_DIR/"')
        cluster.put("hook-both", "in/a", b"x")
        cluster.ended("hook-both")
        eventually(lambda: len(receiver.events) == 2)
    assert receiver.keys() == ["hook-both/in/a", "hook-both/out/a"]
    monkeypatch.delenv(f"{NAME}_ENABLE_a")
    with running_cluster(tmp_path) as cluster:  # its rule stays, and is in nobody's way
        cluster.put("hook-both", "in/b", b"x")
        cluster.ended("hook-both", 2)
        assert cluster.http.delete(cluster.url("/system/services/hook-both")).status_code == 204
        with pytest.raises(Exception, match="A specified destination ARN does not exist"):
            notify(cluster, "other", "a")
    assert len(receiver.events) == 2


def test_https_is_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ssl

    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    more = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run([*command, *more], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    with receiving() as receiver:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        receiver.server.socket = context.wrap_socket(
            receiver.server.socket, server_side=True, do_handshake_on_connect=False
        )
        receiver.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        configure(monkeypatch, "a", f"https://localhost:{receiver.port}/hook")
        with running_cluster(tmp_path / "data") as cluster:
            notify(cluster, "raw", "a")
            cluster.put("raw", "k", b"x")
            eventually(lambda: "TLS with it fails (CERTIFICATE_VERIFY_FAILED)" in cluster.log)
            assert not receiver.events
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with running_cluster(tmp_path / "data"):
            eventually(lambda: receiver.keys() == ["raw/k"])


@pytest.mark.parametrize(
    "environ, sentence",
    [
        ({"ENABLE_A": "on"}, 'ENDPOINT_A: is missing, but MINIO_NOTIFY_WEBHOOK_ENABLE_A is on; write "http://'),
        ({"ENABLE": "on"}, "ENDPOINT: is missing, but"),
        ({"ENABLE_A": "perhaps"}, 'ENABLE_A: "perhaps" is neither on nor off'),
        ({"ENABLE_A": "on", "ENDPOINT_A": "hook.example.org"}, 'ENDPOINT_A: "hook.example.org" is no endpoint'),
        ({"ENABLE_A": "on", "ENDPOINT_A": "ftp://hook"}, "is no endpoint"),
        ({"ENABLE_A": "on", "ENDPOINT_A": "http://hook:port"}, "is no endpoint"),
        ({"ENABLE_A": "on", "ENDPOINT_A": "http://h/\r\nX: y"}, "is no endpoint"),
        ({"ENABLE_A": "on", "ENDPOINT_A": "http://u:p@hook"}, "put it into MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_A"),
        ({"ENABLE_A": "on", "ENDPOINT_A": "http://h", "AUTH_TOKEN_A": "a b c"}, "AUTH_TOKEN_A: is no token"),
        ({"ENABLE_A": "on", "ENDPOINT_A": "http://h", "CLIENT_CERT_A": "x"}, "client certificates are not supported"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(WebhookError) as caught:
        targets_of({f"{NAME}_{name}": value for name, value in environ.items()})
    assert sentence in str(caught.value) and str(caught.value).startswith(NAME)


def test_a_cluster_with_a_wrong_target_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(f"{NAME}_ENABLE_A", "on")
    command = [*COMMAND, "--data", str(tmp_path), "--api", "127.0.0.1:0", "--s3", "127.0.0.1:0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"dioscar: {NAME}_ENDPOINT_A: is missing") and ended.stderr.count("\n") == 1


def test_targets_are_configured_as_in_minio() -> None:
    def only(**variables: str) -> Target:
        (found,) = targets_of({f"{NAME}_{name}": value for name, value in variables.items()})
        return found

    assert only(ENABLE_Case_x="ON", ENDPOINT_Case_x="http://h/p", ENABLE_B="off").id == "Case_x"
    assert only(ENABLE="on", ENDPOINT="http://h").id == "_"
    for token, sent in (("", ""), ("secret", "Bearer secret"), ("Basic dTpw", "Basic dTpw")):
        found = only(ENABLE_A="on", ENDPOINT_A="http://h", AUTH_TOKEN_A=token)
        assert found.authorization == sent and (not token or token not in repr(found))
    assert targets_of({f"{NAME}_ENDPOINT_A": "http://h"}) == []


def test_pauses_grow_up_to_a_bound_and_differ() -> None:
    assert 0.18 < pause_s(1) < 0.32 and pause_s(4) > 1.4
    assert pause_s(10_000) <= BACKOFF_MOST_S * 1.25 and pause_s(50) != pause_s(50)
