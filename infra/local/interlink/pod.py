"""A job as the pod that OSCAR sends to an interLink node, and as the virtual kubelet hands it to a plugin.

Sources: OSCAR v4.1, pkg/handlers/job.go and pkg/types/interlink.go; interLink 0.6.1, pkg/interlink/types.go. What the
virtual kubelet resolves (`envFrom`, `fieldRef`) is resolved here.
"""

import base64
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from infra.local.jobs import Job
from infra.local.services import Deployed
from infra.local.settings import StoreAddress
from infra.local.volumes import namespace_of
from layers.runtime.contract import InputError
from layers.runtime.storage import OWN
from layers.runtime.supervisor import LARGEST_VARIABLE

CONTAINER = "oscar-container"
INIT_CONTAINER = "supervisor-container"
CONFIG_VOLUME, SHARED_VOLUME, SECRET_VOLUME = "oscar-config", "supervisor-share-data", "minio-user"
CONFIG_PATH, SHARED_PATH = "/oscar/config", "/data"
SECRET_PATH = f"/var/run/secrets/providers/{OWN}"
TOLERATION = {"key": "virtual-node.interlink/no-schedule", "operator": "Exists"}
KIT_IMAGE = "ghcr.io/grycap/faas-supervisor-kit:1.6.2"
"""What OSCAR's chart names in SUPERVISOR_KIT_IMAGE: the image with the supervisor in it."""
WATCHDOG = {
    "fprocess": "/oscar/bin/supervisor",
    "max_inflight": "1",
    "write_debug": "true",
    "exec_timeout": "0",
    "read_timeout": "300",
    "write_timeout": "300",
    "healthcheck_interval": "5",
}
"""OSCAR's own defaults; nothing in a job reads them."""
LARGEST_BODY = (LARGEST_VARIABLE - len("EVENT=") - 1) // 4 * 3
"""Bytes of a body whose base64 fits into an environment variable."""
SPACE = uuid.UUID("5f0b8f2e-3c0e-5c58-9c1b-0d5a3b1f7e11")


@dataclass(frozen=True)
class PodName:
    """How a pod is called: `uid` by everybody who speaks of it, the rest by who reads."""

    uid: str
    name: str
    namespace: str
    node: str

    def bare(self) -> dict[str, Any]:
        """The pod as v1.Pod, as far as it says which one: for questions, and for its end."""
        return {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": self.name, "namespace": self.namespace, "uid": self.uid},
            "spec": {
                "initContainers": [{"name": INIT_CONTAINER}],
                "containers": [{"name": CONTAINER}],
                "nodeName": self.node,
            },
        }


def pod_name(job: Job, submission: int, owner: str, node: str) -> PodName:
    """The name of a job's pod; the same job and submission always give the same, each submission another."""
    uid = str(uuid.uuid5(SPACE, f"{job.id}/{submission}"))
    return PodName(uid, f"{job.id}-"[:58] + uid[:5], namespace_of(owner), node)


def retrieved_pod(
    name: PodName,
    deployed: Deployed,
    job: Job,
    body: bytes,
    *,
    store: StoreAddress,
    keys: tuple[str, str],
    kit: str = KIT_IMAGE,
) -> dict[str, Any]:
    """RetrievedPodData: the pod, and the objects that its containers mount; `keys` are the owner's, for `store`.

    Raises InputError where the body does not fit into a pod.
    """
    if len(body) > LARGEST_BODY:
        raise InputError(
            f"the body has {len(body)} bytes, and an interLink node takes {LARGEST_BODY}, since it gets them in an "
            "environment variable; upload the file to the service's bucket"
        )
    access_key, secret_key = keys
    config = {
        "metadata": {"name": deployed.name, "namespace": name.namespace},
        "data": {"function_config.yaml": _config(deployed, store), "script.sh": deployed.service.script},
    }
    secret = {
        "metadata": {"name": SECRET_VOLUME, "namespace": name.namespace},
        "data": {"accessKey": _base64(access_key.encode()), "secretKey": _base64(secret_key.encode())},
        "type": "Opaque",
    }
    return {
        "pod": {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": _metadata(name, deployed, job),
            "spec": _spec(name, deployed, job, body, kit),
            "status": {"phase": "Pending"},
        },
        "container": [_mounted(INIT_CONTAINER), _mounted(CONTAINER, configMaps=[config], secrets=[secret])],
        "jobConfig": {"SingularityHubProxy": {}, "ApptainerOptions": {}, "Volumes": {}},
    }


def _metadata(name: PodName, deployed: Deployed, job: Job) -> dict[str, Any]:
    labels = {
        **deployed.service.labels,
        "oscar_service": deployed.name,
        "oscar.grycap/job-owner": name.namespace.rpartition("-")[2] if deployed.tenant else "cluster_admin",
        "batch.kubernetes.io/job-name": job.id,
        "job-name": job.id,
    }
    return {
        "name": name.name,
        "namespace": name.namespace,
        "uid": name.uid,
        "creationTimestamp": datetime.fromtimestamp(job.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "labels": labels,
        "annotations": dict(deployed.service.annotations),
    }


def _spec(name: PodName, deployed: Deployed, job: Job, body: bytes, kit: str) -> dict[str, Any]:
    service = deployed.service
    limits = {"cpu": service.cpu, "memory": service.memory}
    if service.enable_gpu:
        limits["nvidia.com/gpu"] = "1"
    shared = {"name": SHARED_VOLUME, "mountPath": SHARED_PATH}
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": service.image,
        "command": ["/bin/sh", "-c"],
        "args": [f"echo $EVENT | base64 -d | {SHARED_PATH}/supervisor"],
        "env": [{"name": key, "value": value} for key, value in _environment(name, deployed, job, body).items()],
        "resources": {"limits": limits, "requests": limits},
        "volumeMounts": [
            {"name": CONFIG_VOLUME, "readOnly": True, "mountPath": CONFIG_PATH},
            shared,
            {"name": SECRET_VOLUME, "readOnly": True, "mountPath": SECRET_PATH},
        ],
        "imagePullPolicy": "Always",
    }
    return {
        "volumes": [
            {"name": CONFIG_VOLUME, "configMap": {"name": deployed.name}},
            {"name": SHARED_VOLUME, "emptyDir": {}},
            {"name": SECRET_VOLUME, "secret": {"secretName": SECRET_VOLUME}},
        ],
        "initContainers": [
            {
                "name": INIT_CONTAINER,
                "image": kit,
                "command": ["/bin/sh", "-c"],
                "args": [f"cp -r /supervisor/* {SHARED_PATH}"],
                "resources": {},
                "volumeMounts": [shared],
                "imagePullPolicy": "IfNotPresent",
            }
        ],
        "containers": [container],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "nodeSelector": {"kubernetes.io/hostname": name.node},
        "automountServiceAccountToken": False,
        "nodeName": name.node,
        "imagePullSecrets": [{"name": secret} for secret in service.image_pull_secrets],
        "tolerations": [TOLERATION],
        "enableServiceLinks": False,
    }


def _environment(name: PodName, deployed: Deployed, job: Job, body: bytes) -> dict[str, str]:
    return {
        **deployed.service.environment.secrets,
        **deployed.service.environment.variables,
        "OSCAR_SERVICE_NAME": deployed.name,
        "OSCAR_SERVICE_TOKEN": deployed.token,
        "OSCAR_SERVICE_BASE_PATH": f"/system/services/{deployed.name}/exposed",
        **WATCHDOG,
        "EVENT": _base64(body),
        "JOB_UUID": job.id,
        "RESOURCE_ID": name.node,
    }


def _config(deployed: Deployed, store: StoreAddress) -> str:
    """The service's document, as its supervisor reads it: the store by the address that the node reaches."""
    import yaml

    document = deployed.service.to_json()
    for field in ("script", "token", "deployment", "volume_status", "kserve"):
        document.pop(field, None)
    document["environment"] = {**document.get("environment", {}), "secrets": {}}
    providers = document.get("storage_providers") or {}
    own = {
        "endpoint": store.endpoint,
        "region": store.region,
        "verify": store.verify,
        "access_key": "hidden",
        "secret_key": "hidden",
    }
    document["storage_providers"] = {**providers, "minio": {**(providers.get("minio") or {}), "default": own}}
    return str(yaml.safe_dump(json.loads(json.dumps(document)), allow_unicode=True, sort_keys=False))


def _mounted(container: str, **objects: Any) -> dict[str, Any]:
    """The objects that a container mounts; Go writes what is none as null."""
    nothing = {"configMaps": None, "projectedvolumemaps": None, "secrets": None, "emptyDirs": None}
    return {"name": container, **nothing, **objects}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
