"""Schedules as manifests: every field is one that Kubernetes' API has, and what a pod would run does what it should.

No manifest was applied to a live cluster; the pods' commands are run here, against the embedded one.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from events.schedules import ScheduleError, read_one
from infra.cluster.schedules import Site, manifests, text
from tests.cluster import Cluster

SITE = Site("oscar", "http://oscar.oscar:8080", "https://minio.minio:9000", "ghcr.io/dioscar/dioscar-runtime:0.1.0")
NIGHTLY = {"service": "pulsar-train", "cron": "30 2 * * *", "timezone": "Europe/Madrid", "payload": {"seed": 1}}
ONCE = {"service": "pulsar-train", "at": "2026-12-01T08:30", "timezone": "Europe/Madrid", "missed": "skip"}
GATHER = {"service": "pulsar-train", "gather": {"bucket": "frames", "objects": 2}, "payload": {"seed": 1}}
MODEL = {"service": "pulsar-train", "model": {"name": "pulsar-classifier", "older": "30d"}}


def made(site: Site = SITE, **schedules: dict[str, Any]) -> list[dict[str, Any]]:
    given = [(read_one(name, fields), fields) for name, fields in schedules.items()]
    # as YAML tells it, which is what Kubernetes gets
    return list(yaml.safe_load_all(text(manifests(given, site), [one for one, _ in given], site)))


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    spec = spec["jobTemplate"]["spec"] if manifest["kind"] == "CronJob" else spec
    return dict(spec["template"]["spec"])


# What the API reference of Kubernetes allows (batch/v1 and v1, as of 1.33), as far as it is used: a name and its type.

TEXTS = {"*": str}
META = {"name": str, "namespace": str, "labels": TEXTS}
ENVIRONMENT = [{"name": str, "value": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str}}}]
CONTAINER = {
    "name": str,
    "image": str,
    "imagePullPolicy": ("Always", "IfNotPresent", "Never"),
    "command": [str],
    "env": ENVIRONMENT,
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
    "resources": {"requests": TEXTS, "limits": TEXTS},
    "securityContext": {
        "allowPrivilegeEscalation": bool,
        "readOnlyRootFilesystem": bool,
        "capabilities": {"drop": [str]},
    },
}
SECRET = {"secretName": str, "items": [{"key": str, "path": str}], "defaultMode": int}
POD = {
    "metadata": {"labels": TEXTS},
    "spec": {
        "restartPolicy": ("OnFailure", "Never"),  # of a job
        "automountServiceAccountToken": bool,
        "enableServiceLinks": bool,
        "securityContext": {
            "runAsNonRoot": bool,
            "runAsUser": int,
            "runAsGroup": int,
            "fsGroup": int,
            "seccompProfile": {"type": ("RuntimeDefault", "Localhost", "Unconfined")},
        },
        "containers": [CONTAINER],
        "volumes": [{"name": str, "configMap": {"name": str}, "secret": SECRET}],
    },
}
JOB = {
    "suspend": bool,
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "ttlSecondsAfterFinished": int,
    "template": POD,
}
CRON_JOB = {
    "schedule": str,
    "timeZone": str,
    "concurrencyPolicy": ("Allow", "Forbid", "Replace"),
    "startingDeadlineSeconds": int,
    "suspend": bool,
    "successfulJobsHistoryLimit": int,
    "failedJobsHistoryLimit": int,
    "jobTemplate": {"metadata": {"labels": TEXTS}, "spec": JOB},
}
KINDS: dict[str, Any] = {
    "ConfigMap": {"apiVersion": ("v1",), "kind": str, "metadata": META, "data": TEXTS},
    "CronJob": {"apiVersion": ("batch/v1",), "kind": str, "metadata": META, "spec": CRON_JOB},
    "Job": {"apiVersion": ("batch/v1",), "kind": str, "metadata": META, "spec": JOB},
}


def check(value: Any, rule: Any, where: str) -> None:
    if isinstance(rule, dict):
        assert isinstance(value, dict), where
        for key, entry in value.items():
            assert key in rule or "*" in rule, f"{where}.{key}: no such field"
            check(entry, rule.get(key) or rule["*"], f"{where}.{key}")
    elif isinstance(rule, list):
        assert isinstance(value, list), where
        for entry in value:
            check(entry, rule[0], where)
    elif isinstance(rule, tuple):
        assert value in rule, f"{where}: {value}"
    else:
        assert type(value) is rule, f"{where}: {value!r}"


@pytest.mark.parametrize("fields", [NIGHTLY, ONCE, GATHER, MODEL, {**NIGHTLY, "missed": "skip", "overlap": True}])
def test_every_field_is_one_of_kubernetes(fields: dict[str, Any]):
    documents = made(a=fields)
    assert [document["kind"] for document in documents] == ["ConfigMap", "Job" if "at" in fields else "CronJob"]
    for document in documents:
        check(document, KINDS[document["kind"]], document["kind"])
        assert document["metadata"]["name"] == "dioscar-a"
        assert len(document["metadata"]["name"]) <= 52
        for value in document["metadata"]["labels"].values():
            assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", value)
    pod = pod_of(documents[1])
    volumes = {volume["name"] for volume in pod["volumes"]}
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    assert {"name": "schedule", "configMap": {"name": documents[0]["metadata"]["name"]}} in pod["volumes"]
    for entry in container["env"]:
        assert ("value" in entry) != ("valueFrom" in entry)


def test_the_longest_name_fits():
    name = "a" * 40
    assert made(**{name: NIGHTLY})[1]["metadata"]["name"] == f"dioscar-{name}"


def test_cron_is_a_cron_job_in_its_time_zone():
    spec = made(a=NIGHTLY)[1]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("30 2 * * *", "Europe/Madrid")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert "startingDeadlineSeconds" not in spec
    assert spec["suspend"] is False
    assert made(a={**NIGHTLY, "timezone": "UTC"})[1]["spec"]["timeZone"] == "Etc/UTC"


def test_what_a_schedule_says_of_absence_overlap_and_pause_is_said_to_kubernetes():
    spec = made(a={**NIGHTLY, "missed": "skip", "overlap": True, "paused": True})[1]["spec"]
    assert (spec["startingDeadlineSeconds"], spec["concurrencyPolicy"], spec["suspend"]) == (60, "Allow", True)


def test_once_is_a_job_that_waits_for_its_time():
    config, job = made(a=ONCE)
    assert json.loads(config["data"]["schedule.json"]) == {
        "name": "a",
        "service": "pulsar-train",
        "payload": {},
        "at": "2026-12-01T07:30:00+00:00",
        "missed": "skip",
    }
    assert "activeDeadlineSeconds" not in job["spec"]
    assert pod_of(job)["restartPolicy"] == "OnFailure"
    assert made(a={**ONCE, "paused": True})[1]["spec"]["suspend"] is True


def test_what_arrives_is_looked_for_by_one_checker_at_a_time():
    site = Site(**{**vars(SITE), "check": "*/10 * * * *", "s3_insecure": True})
    config, job = made(site, a={**GATHER, "overlap": True})
    assert job["spec"]["schedule"] == "*/10 * * * *"
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert json.loads(config["data"]["schedule.json"]) == {"name": "a", **GATHER}
    environment = {entry["name"]: entry.get("value") for entry in pod_of(job)["containers"][0]["env"]}
    assert environment["MINIO_TLS_VERIFY"] == "false"


def test_no_secret_is_in_a_manifest_and_each_that_is_needed_is_named():
    documents = text([], [read_one("a", NIGHTLY), read_one("b", GATHER)], SITE)
    assert "create secret generic pulsar-train-token --from-file=token=FILE" in documents
    assert "create secret generic dioscar-s3 " in documents
    (called,) = pod_of(made(a=NIGHTLY)[1])["containers"]
    assert "token" not in " ".join(called["command"])
    assert [
        volume["secret"]["secretName"] for volume in pod_of(made(a=NIGHTLY)[1])["volumes"] if "secret" in volume
    ] == ["pulsar-train-token"]
    (checking,) = pod_of(made(a=GATHER)[1])["containers"]
    assert [entry["valueFrom"]["secretKeyRef"] for entry in checking["env"] if "valueFrom" in entry] == [
        {"name": "dioscar-s3", "key": "access_key"},
        {"name": "dioscar-s3", "key": "secret_key"},
    ]


@pytest.mark.parametrize(
    "cron, sentence",
    [
        ("0 0 * * 7", "knows no day of the week 7; write 0 or SUN"),
        ("0 0 * * 5-7", "knows no day of the week 7"),
        ("0 0 */2 * MON", 'write numbers in place of "*/2"'),
        ("0 0 1 * */2", 'write numbers in place of "*/2"'),
    ],
)
def test_what_kubernetes_reads_in_another_way_is_refused(cron: str, sentence: str):
    with pytest.raises(ScheduleError, match=re.escape(sentence)) as caught:
        made(a={**NIGHTLY, "cron": cron})
    assert str(caught.value).startswith("schedules.a.cron: ")
    with pytest.raises(ScheduleError, match="--check"):
        made(Site(**{**vars(SITE), "check": cron}), a=GATHER)


@pytest.mark.parametrize("cron", ["0 0 */2 * *", "0 0 * * */2", "0 0 1,15 * MON", "*/7 0 17 * *", "0 0 * * SUN-FRI"])
def test_what_both_read_in_the_same_way_is_not(cron: str):
    assert made(a={**NIGHTLY, "cron": cron})[1]["spec"]["schedule"] == cron


# What the pods run


def run(documents: list[dict[str, Any]], folder: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The pod's command, with its ConfigMap as a file, where nothing is installed that the image has not."""
    config, job = documents
    (folder / "schedule.json").write_text(config["data"]["schedule.json"])
    blocked = folder / "blocked"
    blocked.mkdir(exist_ok=True)
    for name in ("cronsim", "yaml", "pydantic", "boto3", "minio"):
        (blocked / f"{name}.py").write_text("raise ImportError('is not in the image')")
    (container,) = pod_of(job)["containers"]
    given = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    command = [sys.executable if word == "python3" else word for word in container["command"][:-1]]
    return subprocess.run(
        [*command, str(folder / "schedule.json")],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(blocked), **given, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("fields", [{"cron": "30 2 * * *", "timezone": "Europe/Madrid"}, {"at": "2026-01-01"}])
def test_the_calling_pod_calls(cluster: Cluster, tmp_path: Path, fields: dict[str, Any]):
    cluster.deploy("pod-call", script='cat "$INPUT_FILE_PATH"')
    before = len(cluster.jobs(service="pod-call"))
    (tmp_path / "token").write_text(cluster.token("pod-call"))
    environ = {"OSCAR_ENDPOINT": cluster.facts["api"], "OSCAR_TOKEN_FILE": str(tmp_path / "token")}
    ended = run(made(a={"service": "pod-call", "payload": {"seed": 1}, **fields}), tmp_path, environ)
    assert (ended.returncode, ended.stderr) == (0, "")
    job = cluster.ended("pod-call", before + 1)[0]
    assert cluster.job_log(job) == '{"seed": 1}'


def test_the_checking_pod_gathers(cluster: Cluster, tmp_path: Path):
    cluster.deploy("pod-gather", variables={"DIOSCAR_FUNCTION": "contract.train"})
    fields = {"bucket": "pod-gather", "prefix": "frames/", "objects": 2}
    documents = made(a={"service": "pod-gather", "gather": fields, "payload": {"steps": 1}})
    environ = {
        "MINIO_ENDPOINT": cluster.facts["s3"],
        "MINIO_ACCESS_KEY": cluster.facts["minio_access_key"],
        "MINIO_SECRET_KEY": cluster.facts["minio_secret_key"],
    }
    cluster.put("pod-gather", "frames/a", b"a")
    assert run(documents, tmp_path, environ).stdout == ""
    cluster.put("pod-gather", "frames/b", b"b")
    for _ in range(2):
        ended = run(documents, tmp_path, environ)
        assert (ended.returncode, ended.stderr) == (0, "")
    (job,) = cluster.ended("pod-gather")
    assert job["state"] == "Succeeded", job["reason"]
    (model,) = [data for key, data in cluster.objects("pod-gather", "out/").items() if key.endswith(".model")]
    assert sorted(json.loads(model)["texts"]) == ["a", "b"]
