"""Which service triggers which: drawn from outputs that are another's input, and from the variable `FORWARD`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fdl.document import Document
from fdl.errors import FdlError
from fdl.forward import REGISTRY, REGISTRY_VARIABLE, VARIABLE, parse_forward
from fdl.model import Service, StorageIO


@dataclass(frozen=True)
class Edge:
    """Outputs of `source` that match `pattern` arrive at `place`, the mailbox of `target` (None: of nobody here).

    `registry`: the place is in the registry of models, where nobody listens and what is promoted serves.
    """

    source: str
    pattern: str
    place: str
    target: str | None
    loop: bool = False
    forwarded: bool = True
    registry: bool = False


@dataclass(frozen=True)
class Graph:
    """The chain of one document."""

    file: str
    services: tuple[str, ...]
    edges: tuple[Edge, ...]

    def downstream(self, service: str) -> tuple[Edge, ...]:
        """The edges that leave a service."""
        return tuple(edge for edge in self.edges if edge.source == service)

    @property
    def registries(self) -> frozenset[str]:
        """The buckets of the registries of models that services forward to."""
        return frozenset(edge.place.partition("/")[0] for edge in self.edges if edge.registry)

    def consumers_first(self) -> tuple[str, ...]:
        """The services such that each mailbox exists before somebody forwards into it."""
        order: list[str] = []
        for service in self.services:
            self._after(service, order, frozenset())
        return tuple(order)

    def _after(self, service: str, order: list[str], above: frozenset[str]) -> None:
        if service in order or service in above:
            return
        for edge in self.downstream(service):
            if edge.target is not None and not edge.loop:
                self._after(edge.target, order, above | {service})
        order.append(service)

    def warnings(self) -> tuple[str, ...]:
        """What is allowed but perhaps not meant, a sentence each."""
        lines = []
        for edge in self.edges:
            if edge.target is None and not edge.registry:
                lines.append(
                    f"{self.file}: {edge.source} forwards {edge.pattern} to {edge.place}, "
                    "where no service of this file listens"
                )
            elif edge.target is not None and not edge.forwarded and edge.target != edge.source:
                lines.append(
                    f"{self.file}: {edge.source} and {edge.target} both declare {edge.place}: OSCAR from 3.5 on "
                    f'refuses the second one, write the variable {VARIABLE}: "* -> {edge.place}" instead'
                )
        return tuple(lines)

    def tree(self) -> str:
        """The chain as an indented text, one line for each service and each way on."""
        targets = {edge.target for edge in self.edges if not edge.loop}
        roots = [name for name in self.services if name not in targets]
        lines: list[str] = []
        for root in roots or self.services[:1]:
            lines.append(root)
            lines.extend(self._branches(root, "", {root}))
        return "\n".join(lines)

    def _branches(self, service: str, indent: str, above: set[str]) -> Iterator[str]:
        edges = self.downstream(service)
        for index, edge in enumerate(edges):
            last = index == len(edges) - 1
            note = "" if edge.target else " (no service of this file)"
            note = " (the registry of models)" if edge.registry else note
            note = " (loop)" if edge.loop else note
            yield f"{indent}{'└── ' if last else '├── '}{edge.pattern} → {edge.target or edge.place}{note}"
            if edge.target and not edge.loop and edge.target not in above:
                yield from self._branches(edge.target, indent + ("    " if last else "│   "), above | {edge.target})

    def to_json(self) -> dict[str, Any]:
        """The graph for programs."""
        edges = [
            {
                "source": edge.source,
                "pattern": edge.pattern,
                "place": edge.place,
                "target": edge.target,
                "loop": edge.loop,
                "registry": edge.registry,
                "through": VARIABLE if edge.forwarded else "output",
            }
            for edge in self.edges
        ]
        return {"services": list(self.services), "edges": edges}


def draw(document: Document) -> Graph:
    """The graph of a document. Raises FdlError for a FORWARD that cannot be read, and for a cycle nobody asked for."""
    edges = tuple(edge for service in document.by_name().values() for edge in _edges(service, document))
    graph = Graph(document.file, tuple(service.name for service in document.services), edges)
    cycle = _cycle(graph)
    if cycle:
        closing = cycle[-1]
        index = graph.services.index(closing.source)
        path = " -> ".join([cycle[0].source, *(str(edge.target) for edge in cycle)])
        raise FdlError(
            f'the chain runs in a circle ({path}); break it, or allow it with dioscar/loop: "{closing.place}"',
            field=f"functions.oscar[{index}].annotations",
            file=document.file,
        )
    return graph


def _edges(service: Service, document: Document) -> Iterator[Edge]:
    loops = service.engine.loop
    registry = service.environment.variables.get(REGISTRY_VARIABLE) or REGISTRY
    for place, pattern, forwarded in _ways_out(service, document):
        bucket, _, folder = place.partition("/")
        listeners = [other.name for other in document.services if _listens(other, bucket, folder)]
        if not listeners and forwarded:
            yield Edge(service.name, pattern, place, None, registry=bucket == registry)
        for listener in listeners:
            yield Edge(service.name, pattern, place, listener, loop=place in loops, forwarded=forwarded)


def _ways_out(service: Service, document: Document) -> Iterator[tuple[str, str, bool]]:
    for output in service.own_outputs:
        yield output.path, _pattern(output), False
    try:
        rules = parse_forward(service.environment.variables.get(VARIABLE, ""))
    except ValueError as error:
        field = f"{document.field_of(service)}.environment.variables.{VARIABLE}"
        raise FdlError(str(error), field=field, file=document.file) from None
    for rule in rules:
        yield f"{rule.bucket}/{rule.folder}", rule.pattern, True


def _pattern(output: StorageIO) -> str:
    prefixes, suffixes = output.prefix or [""], output.suffix or [""]
    return ", ".join(f"{prefix}*{suffix}" for prefix in prefixes for suffix in suffixes)


def _listens(service: Service, bucket: str, folder: str) -> bool:
    """Whether an object below `bucket/folder` can trigger the service: one folder lies in the other."""
    return any(
        mailbox.bucket == bucket
        and (f"{folder}/".startswith(f"{mailbox.folder}/") or f"{mailbox.folder}/".startswith(f"{folder}/"))
        for mailbox in service.mailboxes
    )


def _cycle(graph: Graph) -> list[Edge]:
    """The edges of one cycle, the last one closing it in the file's order; empty when there is none."""
    finished: set[str] = set()

    def visit(service: str, path: list[Edge]) -> list[Edge]:
        if service in finished:
            return []
        for edge in graph.downstream(service):
            if edge.target is None or edge.loop:
                continue
            sources = [step.source for step in path] + [service]
            if edge.target in sources:
                return [*path, edge][sources.index(edge.target) :]
            found = visit(edge.target, [*path, edge])
            if found:
                return found
        finished.add(service)
        return []

    for service in graph.services:
        found = visit(service, [])
        if found:
            return found
    return []
