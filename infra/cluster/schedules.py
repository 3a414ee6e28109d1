"""Schedules as manifests for a real cluster: `cron` is a CronJob, `at` a Job, `gather` and `model` a checking CronJob.

OSCAR has no schedules of its own, so Kubernetes' are used. By the clock, a pod posts the payload to `/job/<service>`
with the service's token (events/call.py); by what arrives, a pod looks at the object store and writes a request into
the service's mailbox (events/gather.py). Tokens and keys come from Secrets, which are not made here.

Field rules: Kubernetes' API reference (batch/v1, v1); cron expressions there: robfig/cron v3, `ParseStandard`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from events.cron import Cron
from events.schedules import Schedule, ScheduleError

S3_SECRET = "dioscar-s3"  # noqa: S105 - its name
CONFIG = "/etc/dioscar/schedule.json"
TOKEN = "/var/run/dioscar/token"  # noqa: S105 - its place
SKIP_S = 60
"""After so many seconds a time that was missed is passed over, where the schedule says so."""
NOBODY = 65534
CALL_S, CHECK_S, KEEP_S = 600, 3600, 7 * 86_400


@dataclass(frozen=True)
class Site:
    """Where the manifests are for: addresses as a pod sees them, and when to look at what has arrived."""

    namespace: str
    endpoint: str
    s3: str
    image: str
    check: str = "*/5 * * * *"
    s3_insecure: bool = False


def manifests(schedules: Iterable[tuple[Schedule, Mapping[str, Any]]], site: Site) -> list[dict[str, Any]]:
    """The manifests of schedules, each with its fields as they were written. Raises ScheduleError."""
    _check("--check", site.check)
    found: list[dict[str, Any]] = []
    for schedule, fields in schedules:
        found += _manifests(schedule, fields, site)
    return found


def text(documents: Iterable[Mapping[str, Any]], schedules: Iterable[Schedule], site: Site) -> str:
    """Manifests as YAML, below what else has to be there."""
    import yaml

    schedules = list(schedules)
    called = sorted({one.service for one in schedules if _is_called(one)})
    lines = [
        f"# Schedules for OSCAR on Kubernetes, in the namespace {site.namespace}. They need these Secrets there:",
        *(
            f"#   kubectl -n {site.namespace} create secret generic {_secret(service)} --from-file=token=FILE"
            f"  # the token of {service}"
            for service in called
        ),
    ]
    if any(not _is_called(one) for one in schedules):
        keys = "--from-literal=access_key=... --from-file=secret_key=FILE"
        lines.append(f"#   kubectl -n {site.namespace} create secret generic {S3_SECRET} {keys}")

    class Dumper(yaml.SafeDumper):
        """Everything written out, and JSON in lines of its own."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def represent_str(self, data: str) -> yaml.ScalarNode:
            return self.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)

    Dumper.add_representer(str, Dumper.represent_str)
    made = yaml.dump_all(documents, Dumper=Dumper, explicit_start=True, sort_keys=False, width=200)
    return "\n".join(lines) + f"\n{made}"


def _manifests(schedule: Schedule, fields: Mapping[str, Any], site: Site) -> list[dict[str, Any]]:
    name = f"dioscar-{schedule.name}"
    labels = {
        "app.kubernetes.io/name": "dioscar-schedule",
        "app.kubernetes.io/instance": schedule.name,
        "app.kubernetes.io/managed-by": "dioscar",
    }
    metadata = {"name": name, "namespace": site.namespace, "labels": labels}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": {"schedule.json": json.dumps(_config(schedule, fields), ensure_ascii=False, indent=1)},
    }
    pod = {"metadata": {"labels": labels}, "spec": _pod(schedule, name, site)}
    if schedule.at is not None:
        spec = {
            "suspend": schedule.paused,
            "backoffLimit": 6,
            "ttlSecondsAfterFinished": KEEP_S,
            "template": pod,
        }
        return [config, {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}]
    cron = schedule.cron or Cron(site.check)
    if schedule.cron is not None:
        _check(f"schedules.{schedule.name}.cron", cron.expression)
    deadline = {"startingDeadlineSeconds": SKIP_S} if schedule.cron is not None and schedule.missed == "skip" else {}
    called = _is_called(schedule)
    job = {"backoffLimit": 3, "activeDeadlineSeconds": CALL_S if called else CHECK_S, "template": pod}
    spec = {
        "schedule": cron.expression,
        "timeZone": "Etc/UTC" if cron.timezone == "UTC" else cron.timezone,
        "concurrencyPolicy": "Allow" if called and schedule.overlap else "Forbid",
        **deadline,
        "suspend": schedule.paused,
        "successfulJobsHistoryLimit": 3,
        "failedJobsHistoryLimit": 3,
        "jobTemplate": {"metadata": {"labels": labels}, "spec": job},
    }
    return [config, {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}]


def _is_called(schedule: Schedule) -> bool:
    """Whether the service is called; the others find a request in their mailbox."""
    return schedule.cron is not None or schedule.at is not None


def _secret(service: str) -> str:
    return f"{service}-token"


def _config(schedule: Schedule, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the pod is told: no cron expression and no time zone, which are Kubernetes' business there."""
    if not _is_called(schedule):
        told = {key: value for key, value in fields.items() if key not in ("paused", "overlap")}
        return {"name": schedule.name, **told}
    config: dict[str, Any] = {"name": schedule.name, "service": schedule.service, "payload": dict(schedule.payload)}
    if schedule.at is not None:
        config |= {"at": datetime.fromtimestamp(schedule.at, UTC).isoformat(), "missed": schedule.missed}
    return config


def _pod(schedule: Schedule, config: str, site: Site) -> dict[str, Any]:
    called = _is_called(schedule)
    mounts = [{"name": "schedule", "mountPath": CONFIG.rpartition("/")[0], "readOnly": True}]
    volumes: list[dict[str, Any]] = [{"name": "schedule", "configMap": {"name": config}}]
    if called:
        environment: list[dict[str, Any]] = [
            {"name": "OSCAR_ENDPOINT", "value": site.endpoint},
            {"name": "OSCAR_TOKEN_FILE", "value": TOKEN},
        ]
        mounts.append({"name": "token", "mountPath": TOKEN.rpartition("/")[0], "readOnly": True})
        secret = {"secretName": _secret(schedule.service), "items": [{"key": "token", "path": "token"}]}
        volumes.append({"name": "token", "secret": {**secret, "defaultMode": 0o440}})
    else:
        environment = [
            {"name": "MINIO_ENDPOINT", "value": site.s3},
            {"name": "MINIO_TLS_VERIFY", "value": "false" if site.s3_insecure else "true"},
            *(
                {"name": variable, "valueFrom": {"secretKeyRef": {"name": S3_SECRET, "key": key}}}
                for variable, key in (("MINIO_ACCESS_KEY", "access_key"), ("MINIO_SECRET_KEY", "secret_key"))
            ),
        ]
    container = {
        "name": "schedule",
        "image": site.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-P", "-m", "events.call" if called else "events.gather", CONFIG],
        "env": environment,
        "volumeMounts": mounts,
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "restartPolicy": "OnFailure" if schedule.at is not None else "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "fsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }


def _check(field: str, expression: str) -> None:
    """Raises ScheduleError for an expression that Kubernetes refuses, or reads in another way than cron does."""
    try:
        Cron(expression).check()
    except ValueError as error:
        raise ScheduleError(str(error), field) from None
    _, _, day, _, weekday = expression.split()
    if "7" in [bound for term in weekday.split(",") for bound in term.partition("/")[0].split("-")]:
        raise ScheduleError(f'"{expression}": Kubernetes knows no day of the week 7; write 0 or SUN', field)
    steps = [part for part in (day, weekday) if part.startswith("*/") and part != "*/1"]
    if steps and "*" not in (day, weekday):
        problem = "of a day and a weekday Kubernetes takes either where cron takes both; write numbers in place of"
        raise ScheduleError(f'"{expression}": {problem} "{steps[0]}"', field)
