"""Websockets through the cluster: messages, subprotocols, closing codes, and those that are not let in."""

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.cluster import Cluster, eventually, running_cluster
from tests.infra.local.exposed.conftest import PATIENCE_S, Exposed, expose


def opened(service: Exposed, path: str = "/socket", **more: object) -> ClientConnection:
    url = service.url(path).replace("http://", "ws://")
    return connect(url, open_timeout=PATIENCE_S, close_timeout=PATIENCE_S, max_size=None, **more)  # type: ignore[arg-type]


def test_messages_pass_in_both_directions(answer: Exposed):
    with opened(answer, additional_headers={"X-Mine": "1", "X-Forwarded-For": "6.6.6.6"}) as client:
        hello = json.loads(client.recv())
        assert hello["path"] == "/system/services/exposed-answer/exposed/socket"
        assert {"x-mine", "x-forwarded-for", "x-forwarded-prefix"} <= set(hello["headers"])
        assert hello["headers"].count("sec-websocket-key") == 1
        assert client.response is not None
        assert client.response.headers["X-Answer"] == "yes"
        for text in ("veto", "é" * 1000, ""):
            client.send(text)
            assert client.recv() == text.upper()
        for data in (b"abc", os.urandom(1 << 20), b""):
            client.send(data)
            assert client.recv() == data[::-1]


def test_a_subprotocol_is_agreed_on(answer: Exposed):
    with opened(answer, subprotocols=["vetoes.v2", "vetoes.v1"]) as client:
        assert client.subprotocol == "vetoes.v2"


def test_a_closing_code_and_its_reason_arrive(answer: Exposed):
    with opened(answer) as client:
        client.recv()
        client.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(PATIENCE_S)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "as you wish")


def test_a_client_that_leaves_is_gone_for_the_service_too(cluster: Cluster):
    service = expose(cluster, "exposed-left")
    service.reaches("ready")
    folder = next((cluster.data / "exposed").glob("exposed-left.*")) / "work"
    with opened(service) as client:
        client.recv()
        client.close(4000)
    eventually(lambda: told(folder / "closed") == "4000", PATIENCE_S, "the news")
    (folder / "closed").unlink()
    with opened(service) as client:
        client.recv()
        client.socket.close()  # as a client that dies
    eventually(lambda: told(folder / "closed"), PATIENCE_S, "the news")
    service.remove()


def test_a_message_that_is_too_large_closes_the_connection(answer: Exposed):
    with opened(answer) as client:
        client.recv()
        with contextlib.suppress(ConnectionClosed):
            client.send(bytes((16 << 20) + 1))
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(PATIENCE_S)
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009


def test_a_service_that_dies_closes_the_connection(cluster: Cluster):
    service = expose(cluster, "exposed-struck")
    service.reaches("ready")
    pid = service.ask("/x").json()["pid"]
    with opened(service) as client:
        client.recv()
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(PATIENCE_S)
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1011
    service.remove()


def test_who_is_not_let_in_gets_an_answer(cluster: Cluster):
    service = expose(cluster, "exposed-guarded", set_auth=True)
    service.reaches("ready")
    with pytest.raises(InvalidStatus) as refused:
        opened(service)
    assert refused.value.response.status_code == 401
    assert b"the password the token of that service" in (refused.value.response.body or b"")
    url = service.url("/socket").replace("http://", f"ws://{service.name}:{cluster.token(service.name)}@")
    with connect(url, open_timeout=PATIENCE_S) as client:
        assert json.loads(client.recv())
    service.remove()


@pytest.mark.parametrize(
    "address, status",
    [
        ("/system/services/exposed-answer/exposed/x", 403),
        ("/system/services/exposed-nobody/exposed/x", 404),
        ("/system/services", 403),
        ("/run/exposed-answer", 403),
        ("/job/exposed-answer", 403),
        ("/health", 403),
    ],
)
def test_where_there_is_no_websocket_nobody_gets_one(answer: Exposed, no_defect: None, address: str, status: int):
    with pytest.raises(InvalidStatus) as refused:
        connect(answer.cluster.url(address).replace("http://", "ws://"), open_timeout=PATIENCE_S)
    assert refused.value.response.status_code == status


def test_an_open_websocket_does_not_keep_a_cluster_from_stopping(tmp_path: Path):
    with running_cluster(tmp_path / "data") as cluster:
        service = expose(cluster, "open-end")
        service.reaches("ready")
        with opened(service) as client:
            client.recv()
            assert cluster.stop() == 0
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE_S)
        assert "Traceback" not in cluster.log


def told(path: Path) -> str:
    return path.read_text() if path.exists() else ""
