"""One document, many places: another registry, tag, or a prefix that keeps two deployments on one cluster apart."""

from dataclasses import replace
from typing import Any

from fdl.document import Document
from fdl.engine import PREFIX
from fdl.errors import FdlError
from fdl.forward import VARIABLE, Rule, format_forward, parse_forward
from fdl.model import Service
from fdl.names import check_bucket_name, check_service_name, mend_name
from fdl.parts import Environment, StorageIO

OWN_IMAGE = "dioscar-"
"""How the names of the project's own images begin; only these are moved to another registry or tag."""


def override(
    document: Document,
    *,
    registry: str | None = None,
    tag: str | None = None,
    prefix: str | None = None,
    cluster_id: str | None = None,
) -> Document:
    """The document with its images, names and cluster changed; whatever is None stays.

    Of a file that speaks of several clusters, the services of `cluster_id` are taken; of any other file, all.
    `prefix` renames the services, the buckets that are their mailboxes, and the forwards that point there.
    Raises FdlError when a prefixed name is too long or malformed, or the file speaks of other clusters only.
    """
    services = [_place(service, registry, tag, cluster_id) for service in _chosen(document, cluster_id)]
    if prefix is not None:
        mailboxes = {mailbox.bucket for service in services for mailbox in service.mailboxes}
        renamed = mailboxes | {service.name for service in services}
        services = [_prefixed(service, prefix, renamed, document.file) for service in services]
    return replace(document, services=tuple(services))


def move_image(image: str, registry: str | None, tag: str | None) -> str:
    """The reference of one of the project's images in another registry or with another tag; other images stay.

    >>> move_image("docker://ghcr.io/dioscar/dioscar-pulsar:0.1.0", "registry.example/physics", "main")
    'docker://registry.example/physics/dioscar-pulsar:main'
    """
    scheme, separator, rest = image.rpartition("://")
    place, slash, name = rest.rpartition("/")
    if not name.startswith(OWN_IMAGE):
        return image
    if registry is not None:
        place, slash = registry.strip("/"), "/"
    if tag is not None:
        name = f"{name.partition('@')[0].partition(':')[0]}:{tag}"
    return f"{scheme}{separator}{place}{slash}{name}"


def _chosen(document: Document, cluster_id: str | None) -> list[Service]:
    clusters = {service.cluster_id for service in document.services}
    if cluster_id is None or len(clusters) == 1:
        return list(document.services)
    if cluster_id not in clusters:
        known = ", ".join(sorted(clusters))
        raise FdlError(
            f'speaks of the clusters {known} and not of "{cluster_id}"; add it, or name one', file=document.file
        )
    return [service for service in document.services if service.cluster_id == cluster_id]


def _place(service: Service, registry: str | None, tag: str | None, cluster_id: str | None) -> Service:
    update: dict[str, Any] = {"image": move_image(service.image, registry, tag)}
    if cluster_id is not None:
        update["cluster_id"] = cluster_id
    return service.model_copy(update=update)


def _prefixed(service: Service, prefix: str, renamed: set[str], file: str) -> Service:
    def bucket(name: str) -> str:
        return f"{prefix}-{name}" if name in renamed else name

    def io(entry: StorageIO) -> StorageIO:
        if not entry.is_own:
            return entry
        return entry.model_copy(update={"path": f"{bucket(entry.bucket)}/{entry.folder}"})

    def place(text: str) -> str:
        name, slash, folder = text.strip(" /").partition("/")
        return f"{bucket(name)}{slash}{folder}"

    try:
        name = check_service_name(f"{prefix}-{service.name}")
        for entry in [*service.input, *service.output]:
            check_bucket_name(bucket(entry.bucket))
    except ValueError:
        room = max(1, 39 - len(service.name) - 1)
        mend = mend_name(prefix)[:room].rstrip("-")
        problem = f'the prefix "{prefix}" makes "{prefix}-{service.name}", which is no service name; write "{mend}"'
        raise FdlError(problem, file=file) from None
    variables = dict(service.environment.variables)
    if variables.get(VARIABLE):
        rules = parse_forward(variables[VARIABLE])
        variables[VARIABLE] = format_forward(Rule(rule.pattern, bucket(rule.bucket), rule.folder) for rule in rules)
    annotations = dict(service.annotations)
    if service.engine.loop:
        annotations[f"{PREFIX}loop"] = ",".join(map(place, service.engine.loop))
    return service.model_copy(
        update={
            "name": name,
            "input": [io(entry) for entry in service.input],
            "output": [io(entry) for entry in service.output],
            "environment": Environment(variables=variables, secrets=service.environment.secrets),
            "annotations": annotations,
        }
    )
