"""The stores of a service beside the cluster's own: its input may come from them, its outputs may go to them.

What goes there is sent before the job's end is recorded: a crash in between repeats the run, and the outputs overwrite
those that are there.

The cluster asks these stores itself, from where it stands: of a user's service it asks none that only this machine or
its network can reach.
"""

import asyncio
import ipaddress
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

from events.notifications import Notification
from infra.local.services import Deployed
from infra.local.workspace import Workspace
from layers.objects.errors import NoSuchObject, ObjectError
from layers.runtime import storage
from layers.runtime.contract import InputError
from layers.runtime.incoming import StorageEvent
from layers.runtime.providers import Providers
from layers.runtime.storage import OWN, ServiceConfig, StorageError
from layers.runtime.supervisor import followed


class StoreFailed(OSError):  # noqa: N818 - what happened
    """A store beside the cluster's own did not do as it was asked; the attempt has failed."""


def config_of(deployed: Deployed) -> ServiceConfig:
    """The service's document, as its supervisor would read it."""
    return storage.config_of(deployed.service.model_dump(mode="json"))


def located(deployed: Deployed, event: StorageEvent) -> StorageEvent:
    """The event with what the service's document knows of its store. Raises InputError where nothing fits."""
    return event.at(config_of(deployed).located(event.notification))


def providers_of(deployed: Deployed) -> Providers:
    """The stores of a service, as far as its owner may have the cluster ask them."""
    config = config_of(deployed)
    return Providers(config, _public) if deployed.tenant else Providers(config)


def _public(host: str) -> None:
    """Raises StorageError for a host inside the cluster's own network, StoreFailed for one that nobody knows."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise StoreFailed(f"{host}: there is no such host") from None
    for *_, address in found:
        if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_global:
            raise StorageError(
                f"{host}: is inside the cluster's own network, where a user's service has no store; take a public one"
            )


async def fetch(deployed: Deployed, found: Notification, target: Path) -> None:
    """Download the object of a notification. Raises InputError where it is not there, StoreFailed where that fails."""
    try:
        await asyncio.to_thread(_fetch, providers_of(deployed), found, target)
    except (NoSuchObject, StorageError) as error:
        raise InputError(str(error)) from None
    except ObjectError as error:
        raise StoreFailed(str(error)) from None


async def send(deployed: Deployed, files: list[str], workspace: Workspace, carried: Mapping[str, bytes] | None) -> None:
    """Upload what the outputs outside the cluster's own store take. Raises InputError or StoreFailed."""
    if all(entry.is_own for entry in deployed.service.output):
        return
    try:
        await asyncio.to_thread(_send, config_of(deployed), providers_of(deployed), files, workspace, carried)
    except StorageError as error:
        raise InputError(str(error)) from None
    except ObjectError as error:
        raise StoreFailed(str(error)) from None


def _fetch(opened: Providers, found: Notification, target: Path) -> None:
    opened[found.provider].fetch(found, target)


def _send(
    config: ServiceConfig,
    opened: Providers,
    files: list[str],
    workspace: Workspace,
    carried: Mapping[str, bytes] | None,
) -> None:
    with tempfile.TemporaryDirectory(prefix="dioscar-") as folder:
        for output in config.outputs:
            for path in filter(output.takes, files if output.provider != OWN else ()):
                source = followed(workspace.produced / path)
                if carried is not None:
                    source = Path(folder, "output")
                    source.write_bytes(carried[path])
                opened[output.provider].send(source, output, path)
