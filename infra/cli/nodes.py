"""Whether a cluster has the interLink nodes that services name; a real OSCAR would let their jobs wait for ever."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from infra.cli.errors import CliError
from infra.cli.target import Target

if TYPE_CHECKING:
    from fdl.model import Service


def missing_nodes(services: Iterable["Service"], there: Target) -> Iterator[str]:
    """A sentence for each service that names a node which the cluster, where it tells its nodes, does not have."""
    from fdl.names import did_you_mean

    naming = [service for service in services if service.interlink_node_name]
    known = _nodes(there) if naming else None
    if known is None:
        return
    for service in naming:
        name = service.interlink_node_name
        if name not in known:
            near = did_you_mean(name, known)
            mend = f'write "{near}"' if near else f"there is {', '.join(sorted(known)) or 'none'}"
            yield f'{service.name}: interlink_node_name: "{name}" is no interLink node of {there.url}; {mend}'


def _nodes(there: Target) -> set[str] | None:
    """The names of a cluster's interLink nodes; None where it does not tell."""
    from fdl.errors import ClusterError
    from infra.local.interlink.nodes import OWN

    try:
        nodes: list[dict[str, Any]] = there.get("/system/status").json()["cluster"]["nodes"]
        names = {str(node["name"]) for node in nodes if node["is_interlink"]}
        backend = there.get("/system/config").json()["config"].get("serverless_backend")
    except (CliError, ClusterError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return names | {OWN} if backend == "dioscar" else names  # the machine itself is no node of its status
