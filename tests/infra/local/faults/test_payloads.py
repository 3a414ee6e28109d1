"""Bodies and callers that mean no good, at /run and /job: one clear answer, little memory, nothing queued."""

import base64
import io
import json
import zipfile
from pathlib import Path

import pytest
import requests

from events.notifications import Notification, build
from tests.cluster import Cluster, eventually
from tests.infra.local.faults.world import COPY, TWIN

WAYS = pytest.mark.parametrize("way", ["run", "job"])
ONCE = {"dioscar/retries": "0"}


def memory(cluster: Cluster) -> int:
    """Bytes that the cluster has had in memory at most since `forget_peak`."""
    assert cluster.process is not None
    lines = Path(f"/proc/{cluster.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def forget_peak(cluster: Cluster) -> int:
    assert cluster.process is not None
    Path(f"/proc/{cluster.process.pid}/clear_refs").write_text("5")
    return memory(cluster)


def zip_bomb() -> bytes:
    """A quarter of a megabyte that would be 256 MiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(256 << 20))
    return buffer.getvalue()


BODIES = {
    "zip bomb": (zip_bomb, None),
    "base64 in base64 in base64": (lambda: base64.b64encode(base64.b64encode(b"x" * 1000)), None),
    "10 MiB of brackets": (lambda: b"[" * (10 << 20), b"[" * (10 << 20)),
    "10 MiB of small lists": (lambda: b"[" + b"[]," * (3 << 20) + b"[]]", b"[" + b"[]," * (3 << 20) + b"[]]"),
}


@WAYS
@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_handed_over_as_it_is(cluster: Cluster, way: str, name: str):
    make, json_text = BODIES[name]
    data = make()
    service = f"body-{way}-{list(BODIES).index(name)}"
    cluster.deploy(service, script=COPY, annotations=ONCE)
    before = forget_peak(cluster)
    answer = cluster.invoke(way, service, json_text or base64.b64encode(data))
    if way == "run":
        assert answer.status_code == 200 and base64.b64decode(answer.content) == data
    else:
        assert answer.status_code == 201 and cluster.ended(service)[0]["state"] == "Succeeded"
        (stored,) = cluster.objects(service, "out/").values()
        assert stored == data
    assert memory(cluster) - before < 160 << 20


@WAYS
@pytest.mark.parametrize(
    "body, said",
    [
        (b"[" * 100_000, "the body is JSON nested too deeply; send a flat object"),
        (b'{"event":' * 900 + b'{"a":"' + b"x" * (1 << 20) + b'"}' + b"}" * 900, "an event within an event"),
        (b"\xff\xfe\x00", "the body is neither JSON nor base64"),
        (b'"\\ud800"', "half a character"),
        (b'{"httpMethod": "GET", "queryStringParameters": {"a\\u0000": "b"}}', "cannot be an environment variable"),
    ],
    ids=["deep", "events", "bytes", "surrogate", "query"],
)
def test_a_body_that_cannot_be_is_one_sentence(cluster: Cluster, way: str, body: bytes, said: str):
    cluster.deploy("refused", script=COPY, annotations=ONCE)
    before = forget_peak(cluster)
    answer = cluster.invoke(way, "refused", body)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]
    assert cluster.jobs(service="refused") == []
    assert memory(cluster) - before < 64 << 20


def test_an_event_that_no_environment_can_hold_is_one_sentence(cluster: Cluster):
    cluster.deploy("wide", script=COPY)
    cluster.put("wide", "elsewhere/a", b"x")
    event = build(Notification("wide", "elsewhere/a", metadata={"note": "x" * 200_000}))
    assert cluster.invoke("job", "wide", json.dumps(event).encode()).status_code == 201
    job = cluster.ended("wide")[0]
    assert (job["state"], job["attempt"]) == ("Dead", 1)
    assert "more than an environment variable holds; send a smaller event" in job["reason"]
    assert [entry["attempt"] for entry in cluster.job(job["id"])["transitions"]] == [0, 1, 1]


@WAYS
def test_another_services_token_opens_nothing(cluster: Cluster, way: str):
    cluster.deploy("mine", script=COPY)
    cluster.deploy("theirs", script=COPY)
    for token in (cluster.token("mine"), "0" * 64, "é", ""):
        answer = requests.post(
            cluster.url(f"/{way}/theirs"), data=b"", headers={"Authorization": f"Bearer {token}".encode()}, timeout=30
        )
        assert (answer.status_code, "is not the token of a service" in answer.text) == (401, True)
    for credentials in ((cluster.facts["oscar_username"], "wrong"), ("wrong", cluster.facts["oscar_password"])):
        assert requests.post(cluster.url(f"/{way}/theirs"), data=b"", auth=credentials, timeout=30).status_code == 401
        refused = requests.get(cluster.url("/system/services"), auth=credentials, timeout=30)
        assert refused.status_code == 401 and "user name or the password is wrong" in refused.text
    assert cluster.jobs(service="theirs") == []


@pytest.mark.parametrize("executor", ["process", "warm"])
def test_a_call_that_fails_leaves_its_traceback_to_the_operator(cluster: Cluster, executor: str):
    variables = {"DIOSCAR_FUNCTION": "faults.harm", "PYTHONPATH": str(TWIN)}
    name = f"call-{executor}"
    cluster.deploy(name, variables=variables, annotations={"dioscar/executor": executor})
    answer = cluster.run(name, b"nothing-of-the-kind")
    assert answer.status_code == 500
    assert answer.json() == {"error": {"type": "KeyError", "message": "'_nothing_of_the_kind'"}}
    eventually(lambda: f"a call of {name} failed: KeyError" in cluster.log)
    assert "KeyError: '_nothing_of_the_kind'" in cluster.log and 'harm.py", line' in cluster.log


def test_a_cancelled_job_counts_the_attempts_that_it_had(cluster: Cluster):
    cluster.deploy("cancelled", script="sleep 60")
    cluster.put("cancelled", "in/a", b"x")
    running = eventually(lambda: cluster.jobs(service="cancelled", state="Running"))[0]
    cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{running['id']}/cancel"))
    transitions = eventually(lambda: cluster.job(running["id"])["transitions"][2:] and cluster.job(running["id"]))
    noted = [(entry["state"], entry["attempt"]) for entry in transitions["transitions"]]
    assert noted == [("Pending", 0), ("Running", 1), ("Cancelled", 1)]
