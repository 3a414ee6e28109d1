"""What other programs may send: whatever it is, the answer is one of the protocol, never the plugin's own failure."""

import copy
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.hpc import script
from tests.infra.hpc.plugin.fake import Client, oscar_pod, serving

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 1 << 70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module", params=["apptainer", "podman", "process"])
def plugin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A plugin with the real writer of scripts."""
    with serving(tmp_path_factory.mktemp("plugin"), script.write, runtime=request.param, poll=60, sweep=60) as client:
        yield client


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where everything stands in a document."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, child in children for found in paths(child, (*path, key)))]


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A document with something else at one place."""
    if not path:
        return value
    changed = copy.copy(document)
    changed[path[0]] = replaced(document[path[0]], path[1:], value)
    return changed


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(path=st.sampled_from(paths(oscar_pod())), value=VALUES)
def test_a_pod_with_something_else_in_it(plugin: Client, path: tuple[Any, ...], value: Any) -> None:
    uid = str(uuid.uuid4())
    body = replaced(oscar_pod(uid), path, value)
    reply = plugin.create(body)
    assert reply.status_code in (200, 400, 422), (path, value, reply.text)
    if reply.status_code != 200:
        assert reply.text.strip() and "\n" not in reply.text
        assert not list(plugin.root.glob(f"*-{uid}"))
    pod = body.get("pod") if isinstance(body, dict) else body
    reply = plugin.status(pod)
    assert reply.status_code in (200, 400), (path, value, reply.text)
    if reply.status_code == 200:
        [status] = reply.json()
        assert status["containers"] and all(len(one["state"]) == 1 for one in status["containers"])
    assert plugin.delete(pod).status_code in (200, 400)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(options=st.dictionaries(st.sampled_from(["Tail", "Bytes", "SinceSeconds", "SinceTime", "Previous"]), VALUES))
def test_log_options_with_something_else_in_them(plugin: Client, options: dict[str, Any]) -> None:
    reply = plugin.logs(**options)
    assert reply.status_code in (400, 404), reply.text
    assert reply.text and "\n" not in reply.text


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"pod":' * 100_000,
        b'{"pod": {"metadata": {"name": "\\ud800"}}}',
        b"\xff\xfe",
        b"\x00",
        b"null",
    ],
    ids=["lists", "objects", "surrogate", "bytes", "zero", "null"],
)
def test_bodies_that_are_no_json_of_anybody(plugin: Client, body: bytes) -> None:
    for method, route in (("POST", "/create"), ("POST", "/delete"), ("GET", "/status"), ("GET", "/getLogs")):
        if (route, body) == ("/status", b"null"):
            continue  # as Go writes an empty list: a ping
        reply = plugin.send(method, route, body)
        assert reply.status_code in (400, 413) and "\n" not in reply.text
