"""The contract's second form: `app(settings)` is served by the script that runs functions."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
import yaml

from layers.runtime.contract import InputError
from layers.runtime.function import is_app, load, load_app
from layers.runtime.preflight import complaints
from tests.cluster import FUNCTION_SCRIPT, TWIN, eventually
from tests.ports import free_port

BASE = "/system/services/a/exposed"


def environment(**variables: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return {"PATH": path, "PYTHONPATH": str(TWIN), "DIOSCAR_FUNCTION": "contract.answer", **variables}


@contextmanager
def served(script: Path, *handed: int, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """The script that OSCAR starts, in a process of its own."""
    script.write_text(FUNCTION_SCRIPT)
    process = subprocess.Popen(["/bin/sh", str(script)], env=environment(**variables), pass_fds=handed)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def asked(url: str) -> requests.Response | None:
    try:
        return requests.get(url, timeout=60)
    except requests.exceptions.ConnectionError:
        return None


def test_it_is_served_on_the_socket_that_is_handed_down_and_drained_on_sigterm(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        number = str(listener.fileno())
        with served(tmp_path / "s", listener.fileno(), DIOSCAR_APP_FD=number, GREETING="hallo") as process:
            facts = requests.get(f"{url}/x", timeout=60).json()  # it waits in the queue of the socket
            assert (facts["greeting"], facts["path"], facts["root_path"]) == ("hallo", "/x", "")
            with requests.Session() as session, session.get(f"{url}/slow?s=0", timeout=60) as first:
                assert first.text == "at last"
                os.kill(process.pid, signal.SIGTERM)
                assert process.wait(60) in (0, -signal.SIGTERM)


def test_a_request_under_way_is_answered_before_it_ends(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        handed = listener.fileno()
        with served(tmp_path / "s", handed, DIOSCAR_APP_FD=str(handed)) as process, socket.socket() as client:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            assert requests.get(url, timeout=60).text == "here"
            client.settimeout(60)
            client.connect(listener.getsockname())
            client.sendall(b"POST /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\na")
            assert requests.get(url, timeout=60).text == "here"  # the one before has been accepted by now
            os.kill(process.pid, signal.SIGTERM)
            client.sendall(b"b")
            answer = b""
            while chunk := client.recv(65536):
                answer += chunk
            assert b'"size":2' in answer


@pytest.mark.parametrize("spelt", [[0], 0])
def test_in_a_pod_it_listens_where_its_document_says(tmp_path: Path, spelt: object):
    port = free_port()
    document = yaml.safe_dump({"name": "a", "expose": {"api_port": [port] if isinstance(spelt, list) else port}})
    config = base64.b64encode(document.encode()).decode()
    with served(tmp_path / "s", FUNCTION_CONFIG=config, OSCAR_SERVICE_BASE_PATH=BASE):
        for path in ("/x", f"{BASE}/x"):  # rewrite_target or not
            facts = eventually(lambda path=path: asked(f"http://127.0.0.1:{port}{path}")).json()  # type: ignore[misc]
            assert (facts["path"], facts["root_path"]) == (f"{BASE}/x", BASE)


@pytest.mark.parametrize(
    "variables, sentence",
    [
        ({"PAUSE_S": "soon", "PORT": "1"}, 'environment variable PAUSE_S: "soon" is no number; write number'),
        ({}, 'there is no port to listen on (PORT is ""); set expose.api_port in the FDL'),
        ({"PORT": "http"}, 'there is no port to listen on (PORT is "http"); set expose.api_port in the FDL'),
        ({"DIOSCAR_FUNCTION": "contract.copy"}, "functions/contract/copy.py: has no app(settings) to serve"),
        ({"DIOSCAR_FUNCTION": "contract.none"}, 'there is no function "contract.none"'),
    ],
)
def test_what_another_start_would_not_mend_is_bad_input(tmp_path: Path, variables: dict[str, str], sentence: str):
    outcome = tmp_path / "outcome.json"
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "layers.runtime"],
        env=environment(DIOSCAR_OUTCOME=str(outcome), **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 65
    assert sentence in ended.stdout
    assert len(ended.stdout.splitlines()) == 1 and not ended.stderr
    told = json.loads(outcome.read_text())
    assert told["code"] == 65 and sentence in told["message"]


def test_a_port_that_is_taken_is_named(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "layers.runtime.app"],
            env=environment(PORT=str(taken.getsockname()[1])),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 65
    assert "cannot be listened on (Address already in use); choose another api_port" in ended.stdout


def test_the_two_forms_are_told_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TWIN))
    assert is_app("contract.answer") and not is_app("contract.copy")
    assert load_app("contract.answer").settings.__name__ == "Settings"
    with pytest.raises(InputError, match="is an exposed service"):
        load("contract.answer")


def test_its_variables_are_doubted_before_it_is_deployed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(TWIN))
    assert complaints({"DIOSCAR_FUNCTION": "contract.answer", "GREETING": "hi"}) == []
    (doubt,) = complaints({"DIOSCAR_FUNCTION": "contract.answer", "GREETINGS": "hi"})
    assert doubt.endswith("has no such setting; did you mean GREETING?")


def test_nothing_heavy_is_imported_to_serve():
    code = (
        "import sys, layers.runtime.app; print({'uvicorn', 'starlette', 'yaml', 'numpy', 'aiohttp'} & {*sys.modules})"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert ended.stdout.strip() == "set()"
