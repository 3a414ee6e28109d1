"""Inputs without outputs: what lies in a mailbox with no record of a run beside the outputs, on any OSCAR cluster.

It uses what every OSCAR has: the services, the keys to the object store, and `/job`. A record is newer than the input
that it is of; where it is older, the input has been overwritten since and its event was lost.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from infra.cli.errors import CliError, Exit
from infra.cli.target import Target, store_errors

if TYPE_CHECKING:
    from events.notifications import Notification
    from fdl.model import Service
    from layers.runtime.storage import Output

OPEN = ("Pending", "Running", "Retrying")
BATCH = 500
CREATED = "s3:ObjectCreated:Put"


@dataclass(frozen=True)
class Waiting:
    """An object in a mailbox of a service that has left no record of it.

    `job` is its newest job, and `note` that job's state, where the cluster tells.
    """

    service: str
    bucket: str
    key: str
    size: int
    modified: datetime
    job: str = ""
    note: str = ""


@dataclass(frozen=True)
class Listed:
    """An object of a listing."""

    key: str
    size: int
    modified: datetime


def without_output(inputs: Iterable[Listed], records: Iterable[Listed], folder: str) -> Iterator[Listed]:
    """The inputs that have no record below `folder` (`out/_runs/`), or one that is older than the input.

    Records are `<folder><input below its mailbox>/<run key>.json`.
    """
    from layers.runtime.invocation import below_mailbox

    newest: dict[str, datetime] = {}
    for record in records:
        name = record.key.removeprefix(folder).rpartition("/")[0]
        newest[name] = max(record.modified, newest.get(name, record.modified))
    for given in inputs:
        if given.key.endswith("/"):
            continue
        found = newest.get(below_mailbox(given.key))
        if found is None or found < given.modified:
            yield given


def find(there: Target, services: Iterable["Service"], before: datetime) -> Iterator[Waiting]:
    """What waits in the mailboxes of these services and was there `before`. Raises CliError."""
    ours = has_queue(there)
    for service in services:
        records = [(output.bucket, f"{output.folder}/_runs/".lstrip("/")) for output in _records_go_to(service)]
        if not records:
            continue
        bucket, folder = records[0]
        made = list(_listed(there, bucket, folder))
        for mailbox in service.mailboxes:
            prefix = f"{mailbox.folder}/" if mailbox.folder else ""
            for given in without_output(_listed(there, mailbox.bucket, prefix), made, folder):
                job, note = _newest(there, service.name, mailbox.bucket, given.key) if ours else ("", "")
                if given.modified <= before and note not in OPEN:
                    yield Waiting(service.name, mailbox.bucket, given.key, given.size, given.modified, job, note)


def keeps_records(service: "Service") -> bool:
    """Whether a service leaves records of its runs: one of DiOSCAR's functions, whose outputs let them through."""
    return bool(_records_go_to(service))


def below(there: Target, services: Iterable["Service"], bucket: str, prefix: str) -> list[Waiting]:
    """Everything below a prefix, for each service that has its mailbox there. Raises CliError."""
    mailboxes = [
        (service.name, f"{mailbox.folder}/" if mailbox.folder else "")
        for service in services
        for mailbox in service.mailboxes
        if mailbox.bucket == bucket
    ]
    return [
        Waiting(name, bucket, given.key, given.size, given.modified)
        for given in _listed(there, bucket, prefix)
        for name, start in mailboxes
        if given.key.startswith(start) and not given.key.endswith("/")
    ]


def run(there: Target, waiting: Iterable[Waiting]) -> int:
    """Have the services run what waits; returns how many jobs that made. Raises CliError."""
    return _queue(there, list(waiting)) if has_queue(there) else sum(_post(there, list(waiting)))


def has_queue(there: Target) -> bool:
    """Whether the cluster is an embedded one, which knows what became of its events."""
    try:
        there.get("/dioscar/v1/status")
    except CliError as error:
        if error.status != Exit.NOT_FOUND:
            raise
        return False
    return True


def services_of(there: Target, name: str | None) -> list["Service"]:
    """The cluster's services, or the one of that name. Raises CliError where there is none."""
    from fdl.model import service_from_json

    documents = there.services() if name is None else [there.service(name)]
    return [service_from_json(document) for document in documents]


def _records_go_to(service: "Service") -> "list[Output]":
    from layers.runtime.storage import Output

    variables = {**service.environment.variables, **service.environment.secrets}
    if "DIOSCAR_FUNCTION" not in variables:
        return []
    outputs = [
        Output(entry.bucket, entry.folder, tuple(entry.prefix), tuple(entry.suffix)) for entry in service.own_outputs
    ]
    return [output for output in outputs if output.takes("_runs/a/b.json")]


def _listed(there: Target, bucket: str, prefix: str) -> Iterator[Listed]:
    with store_errors(f"{bucket}/{prefix}"):
        for entry in there.store.list_objects(bucket, prefix=prefix, recursive=True):
            if not entry.is_dir:
                yield Listed(str(entry.object_name), int(entry.size or 0), entry.last_modified)


def _newest(there: Target, service: str, bucket: str, key: str) -> tuple[str, str]:
    """The newest job that an embedded cluster has had of an object, and its state; empty where it has had none."""
    found = there.get("/dioscar/v1/jobs", service=service, bucket=bucket, key=key, limit=1).json()["jobs"]
    return (str(found[0]["id"]), str(found[0]["state"])) if found else ("", "")


def _queue(there: Target, waiting: list[Waiting]) -> int:
    """By the embedded cluster's own queue, but for what has had another job since it was looked at."""
    made = 0
    groups: dict[tuple[str, str], list[Waiting]] = {}
    for one in waiting:
        groups.setdefault((one.service, one.bucket), []).append(one)
    for (service, bucket), of_it in groups.items():
        for start in range(0, len(of_it), BATCH):
            newest = {one.key: one.job for one in of_it[start : start + BATCH]}
            wanted = {"service": service, "bucket": bucket, "newest": newest}
            made += there.post("/dioscar/v1/replay", {"objects": wanted}).json()["replayed"]
    return made


def _post(there: Target, waiting: list[Waiting]) -> Iterator[int]:
    """By `/job`, with the event that MinIO would have posted."""
    import requests

    from events.notifications import build
    from fdl.apply import sentences

    tokens: dict[str, str] = {}
    principal = str(there.get("/system/config").json()["minio_provider"]["access_key"])
    with requests.Session() as session:
        for one in waiting:
            if one.service not in tokens:
                tokens[one.service] = str(there.service(one.service)["token"])
            told = _event(there, one, principal)
            if told is None:
                continue  # deleted meanwhile
            with sentences(there.url):
                reply = session.post(
                    f"{there.url}/job/{one.service}",
                    data=json.dumps(build(told), ensure_ascii=False).encode(),
                    headers={"Authorization": f"Bearer {tokens[one.service]}", "Content-Type": "application/json"},
                    verify=there.endpoint.verify,
                    timeout=(10, 60),
                )
                reply.raise_for_status()
            yield 1


def _event(there: Target, one: Waiting, principal: str) -> "Notification | None":
    """What MinIO would have told, as the user `principal` of the store; None where the object is gone."""
    from minio.error import S3Error

    from events.notifications import Notification

    with store_errors(f"{one.bucket}/{one.key}"):
        try:
            found = there.store.stat_object(one.bucket, one.key)
        except S3Error as error:
            if error.code in ("NoSuchKey", "ResourceNotFound"):
                return None
            raise
    metadata = {name: value for name, value in (found.metadata or {}).items() if name.lower().startswith("x-amz-meta-")}
    return Notification(
        bucket=one.bucket,
        key=one.key,
        event_name=CREATED,
        size=int(found.size or 0),
        etag=str(found.etag or "").strip('"'),
        content_type=str(found.content_type or ""),
        metadata=metadata,
        sequencer=f"{int(one.modified.timestamp() * 1e9):X}",
        time=one.modified,
        principal=principal,
    )
