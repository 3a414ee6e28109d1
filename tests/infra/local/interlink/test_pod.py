"""The pod is OSCAR's, key by key, as the virtual kubelet hands it to a plugin."""

import base64
import json
from typing import Any

import pytest
import yaml

from fdl.model import service_from_json
from infra.local.interlink.pod import LARGEST_BODY, PodName, pod_name, retrieved_pod
from infra.local.jobs import Job, State
from infra.local.services import Deployed
from infra.local.settings import StoreAddress
from layers.runtime.contract import InputError

JOB = Job(
    1,
    "trains-0b1a4f9e-3c7d-4c58-9d7e-2f1f4f3f5a6b",
    "trains",
    "trains",
    "in/request.json",
    7,
    State.PENDING,
    attempt=0,
    max_attempts=4,
    not_before=0.0,
    created=1795318957.5,
    started=None,
    finished=None,
    exit_code=None,
    reason="",
    run_key="",
    pinned=None,
)
NAME = PodName("6f9619ff-8b86-5011-b42d-00c04fc964ff", "trains-pod", "oscar-svc", "hpc")
STORE = StoreAddress("https://s3.example.org", "us-east-1", verify=True)
EVENT = b'{"Records": [{"s3": {"object": {"key": "in%2Frequest.json"}}}]}'


def deployed(**more: Any) -> Deployed:
    document = {
        "name": "trains",
        "image": "docker://ghcr.io/dioscar/dioscar-pulsar:0.1.0",
        "cpu": "2.0",
        "memory": "4Gi",
        "script": "#!/bin/sh\nexec python3 -P -m layers.runtime\n",
        "input": [{"storage_provider": "minio.default", "path": "trains/in"}],
        "output": [{"storage_provider": "minio.default", "path": "trains/out"}],
        "environment": {
            "variables": {"DIOSCAR_FUNCTION": "pulsar.train", "QUOTES": 'a "b"\n$c'},
            "secrets": {"KEY": "s"},
        },
        "annotations": {"slurm-job.vk.io/flags": "--time=60", "dioscar/retries": "3"},
        "labels": {"physics": "pulsar"},
        "interlink_node_name": "hpc",
        **more,
    }
    return Deployed(service_from_json(document), "t" * 64, "cluster_admin", 1)


def made(**more: Any) -> Any:
    """The pod as it travels."""
    pod = retrieved_pod(NAME, deployed(**more), JOB, EVENT, store=STORE, keys=("minio", "secret"))
    return json.loads(json.dumps(pod))


def test_the_pod_is_the_one_that_oscar_sends() -> None:
    pod = made()["pod"]
    environment = {one["name"]: one["value"] for one in pod["spec"]["containers"][0].pop("env")}
    assert environment.pop("EVENT") == base64.b64encode(EVENT).decode()
    assert environment == {
        "DIOSCAR_FUNCTION": "pulsar.train",
        "QUOTES": 'a "b"\n$c',
        "KEY": "s",
        "OSCAR_SERVICE_NAME": "trains",
        "OSCAR_SERVICE_TOKEN": "t" * 64,
        "OSCAR_SERVICE_BASE_PATH": "/system/services/trains/exposed",
        "fprocess": "/oscar/bin/supervisor",
        "max_inflight": "1",
        "write_debug": "true",
        "exec_timeout": "0",
        "read_timeout": "300",
        "write_timeout": "300",
        "healthcheck_interval": "5",
        "JOB_UUID": JOB.id,
        "RESOURCE_ID": "hpc",
    }
    assert pod == json.loads(
        """
    {
      "kind": "Pod",
      "apiVersion": "v1",
      "metadata": {
        "name": "trains-pod",
        "namespace": "oscar-svc",
        "uid": "6f9619ff-8b86-5011-b42d-00c04fc964ff",
        "creationTimestamp": "2026-11-22T03:42:37Z",
        "labels": {
          "physics": "pulsar",
          "oscar_service": "trains",
          "oscar.grycap/job-owner": "cluster_admin",
          "batch.kubernetes.io/job-name": "trains-0b1a4f9e-3c7d-4c58-9d7e-2f1f4f3f5a6b",
          "job-name": "trains-0b1a4f9e-3c7d-4c58-9d7e-2f1f4f3f5a6b"
        },
        "annotations": {"slurm-job.vk.io/flags": "--time=60", "dioscar/retries": "3"}
      },
      "spec": {
        "volumes": [
          {"name": "oscar-config", "configMap": {"name": "trains"}},
          {"name": "supervisor-share-data", "emptyDir": {}},
          {"name": "minio-user", "secret": {"secretName": "minio-user"}}
        ],
        "initContainers": [
          {
            "name": "supervisor-container",
            "image": "ghcr.io/grycap/faas-supervisor-kit:1.6.2",
            "command": ["/bin/sh", "-c"],
            "args": ["cp -r /supervisor/* /data"],
            "resources": {},
            "volumeMounts": [{"name": "supervisor-share-data", "mountPath": "/data"}],
            "imagePullPolicy": "IfNotPresent"
          }
        ],
        "containers": [
          {
            "name": "oscar-container",
            "image": "docker://ghcr.io/dioscar/dioscar-pulsar:0.1.0",
            "command": ["/bin/sh", "-c"],
            "args": ["echo $EVENT | base64 -d | /data/supervisor"],
            "resources": {
              "limits": {"cpu": "2.0", "memory": "4Gi"},
              "requests": {"cpu": "2.0", "memory": "4Gi"}
            },
            "volumeMounts": [
              {"name": "oscar-config", "readOnly": true, "mountPath": "/oscar/config"},
              {"name": "supervisor-share-data", "mountPath": "/data"},
              {"name": "minio-user", "readOnly": true, "mountPath": "/var/run/secrets/providers/minio.default"}
            ],
            "imagePullPolicy": "Always"
          }
        ],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "nodeSelector": {"kubernetes.io/hostname": "hpc"},
        "automountServiceAccountToken": false,
        "nodeName": "hpc",
        "imagePullSecrets": [],
        "tolerations": [{"key": "virtual-node.interlink/no-schedule", "operator": "Exists"}],
        "enableServiceLinks": false
      },
      "status": {"phase": "Pending"}
    }
    """
    )


def test_each_container_comes_with_what_it_mounts_and_nulls_for_the_rest() -> None:
    pod = made()
    init, main = pod["container"]
    assert init == {
        "name": "supervisor-container",
        "configMaps": None,
        "projectedvolumemaps": None,
        "secrets": None,
        "emptyDirs": None,
    }
    assert main["secrets"] == [
        {
            "metadata": {"name": "minio-user", "namespace": "oscar-svc"},
            "data": {"accessKey": "bWluaW8=", "secretKey": "c2VjcmV0"},
            "type": "Opaque",
        }
    ]
    (config,) = main["configMaps"]
    assert config["metadata"] == {"name": "trains", "namespace": "oscar-svc"}
    assert config["data"]["script.sh"] == "#!/bin/sh\nexec python3 -P -m layers.runtime\n"
    assert set(pod) == {"pod", "container", "jobConfig"}


def test_the_supervisor_reads_the_store_of_the_node_and_no_keys() -> None:
    (config,) = made()["container"][1]["configMaps"]
    document = yaml.safe_load(config["data"]["function_config.yaml"])
    assert document["storage_providers"]["minio"]["default"] == {
        "endpoint": "https://s3.example.org",
        "region": "us-east-1",
        "verify": True,
        "access_key": "hidden",
        "secret_key": "hidden",
    }
    assert document["name"] == "trains"
    assert document["output"][0]["path"] == "trains/out"
    assert "token" not in document
    assert document["environment"]["secrets"] == {}


def test_a_gpu_is_a_limit() -> None:
    assert made(enable_gpu=True)["pod"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_submission_has_a_name_of_its_own_and_always_the_same() -> None:
    first, again, second = (pod_name(JOB, number, "cluster_admin", "hpc") for number in (1, 1, 2))
    assert first == again
    assert first.uid != second.uid
    assert first.name != second.name
    assert len(first.name) <= 63
    assert first.namespace == "oscar-svc"
    assert pod_name(JOB, 1, "alice@example.org", "hpc").namespace.startswith("oscar-svc-")


def test_a_body_that_no_variable_holds_is_refused() -> None:
    body = b"x" * (LARGEST_BODY + 1)
    with pytest.raises(InputError, match="upload the file to the service's bucket"):
        retrieved_pod(NAME, deployed(), JOB, body, store=STORE, keys=("a", "b"))
    assert len("EVENT=" + base64.b64encode(b"x" * LARGEST_BODY).decode()) < 128 * 1024
