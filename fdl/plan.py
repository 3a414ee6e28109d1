"""What it takes to bring a cluster to a document: a list of instructions that can be printed and tested without one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fdl.document import Document
from fdl.errors import FdlError
from fdl.graph import draw
from fdl.model import Service, service_from_json

Action = Literal["create", "update", "unchanged"]

SERVER_FIELDS = {"token", "owner", "namespace", "volume_status", "deployment", "bucket_list"}
"""What the cluster writes into a service by itself."""

SERVER_LABELS = {"oscar_service", "applicationId", "queue", "owner_name", "uid", "kueue.x-k8s.io/queue-name"}
SERVER_LABEL_PREFIX = "oscar.grycap/"

HIDDEN = "(hidden)"
_SECRET_FIELDS = {"access_key", "secret_key", "password", "token", "refresh_token", "auth_password"}


@dataclass(frozen=True)
class Change:
    """One field that differs; None stands for an absent value."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Instruction:
    """What to do about one service."""

    action: Action
    service: Service
    changes: tuple[Change, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The instruction for programs."""
        changes = [{"field": change.field, "before": change.before, "after": change.after} for change in self.changes]
        return {"service": self.service.name, "action": self.action, "changes": changes}


def plan(document: Document, cluster: Mapping[str, Mapping[str, Any]]) -> tuple[Instruction, ...]:
    """The instructions that bring a cluster to the document, consumers before producers.

    `cluster` holds the services that are there, by name, as `GET /system/services` tells them. Services that the
    document does not name are left alone. Raises FdlError when the document's chain is wrong.
    """
    services = document.by_name()
    return tuple(_instruction(services[name], cluster.get(name)) for name in draw(document).consumers_first())


def _instruction(service: Service, there: Mapping[str, Any] | None) -> Instruction:
    if there is None:
        return Instruction("create", service)
    changes = tuple(_changes(service, there))
    return Instruction("update" if changes else "unchanged", service, changes)


def _changes(service: Service, there: Mapping[str, Any]) -> Iterator[Change]:
    try:
        current = service_from_json(there)
    except FdlError as error:  # another version's idea of a service: ours replaces it
        yield Change(error.field, error.problem, None)
        return
    before, after = _comparable(current), _comparable(service)
    for field in [*after, *(field for field in before if field not in after)]:
        if before.get(field) != after.get(field):
            yield Change(field, before.get(field), after.get(field))
    if service.environment.secrets:  # the cluster never tells their values, so they are sent each time
        yield Change("environment.secrets", HIDDEN, HIDDEN)


def _comparable(service: Service) -> dict[str, Any]:
    """The document's own fields, flat: `environment.variables.FORWARD`, `input[0].path`."""
    document = service.to_json()
    for field in SERVER_FIELDS | {"cluster_id"}:  # some clients send their name for the cluster, others do not
        document.pop(field, None)
    document["environment"].pop("secrets")
    document["labels"] = {name: value for name, value in document["labels"].items() if not _from_server(name)}
    document.get("storage_providers", {}).get("minio", {}).pop("default", None)
    return dict(_flat(document, ""))


def _from_server(label: str) -> bool:
    return label in SERVER_LABELS or label.startswith(SERVER_LABEL_PREFIX)


def _flat(value: Any, field: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in _SECRET_FIELDS:
                yield from _flat(item, f"{field}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _flat(item, f"{field}[{index}]")
    else:
        yield field, value
