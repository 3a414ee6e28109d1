"""An FDL file, read strictly: every slip is an error that names the file, the field and the mend."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fdl.errors import FdlError, quoted
from fdl.folding import fold, sentence
from fdl.model import Service, service_from_entry
from fdl.names import did_you_mean
from fdl.parts import Cluster, Part, StorageProviders

_TOP = ("functions", "storage_providers", "clusters")
LARGEST = 1 << 20
"""Bytes of a declaration, and of a script: what is larger is something else."""
MOST_NODES = 100_000
"""Values in a file, each alias counted as all that it stands for: a few lines of aliases can stand for millions."""


@dataclass(frozen=True)
class Document:
    """The services of one file, in its order, scripts inlined, the file's stores and clusters merged into each."""

    file: str
    services: tuple[Service, ...]

    def field_of(self, service: Service) -> str:
        """Where in the file a service stands: `functions.oscar[2]`."""
        return f"functions.oscar[{self.services.index(service)}]"

    def by_name(self) -> dict[str, Service]:
        """The services by their names. Raises FdlError where one is on two clusters: choose a cluster first."""
        services = {service.name: service for service in self.services}
        for index, service in enumerate(self.services):
            if services[service.name] is not service:
                problem = f'"{service.name}" is on several clusters in this file; choose one of them with --cluster'
                raise FdlError(problem, field=f"functions.oscar[{index}].name", file=self.file)
        return services


def read_file(path: Path | str) -> Document:
    """Read an FDL file and the scripts that it names. Raises FdlError."""
    path = Path(path)
    try:
        return Document(str(path), tuple(_services(_load(path), path.parent)))
    except FdlError as error:
        raise FdlError(error.problem, field=error.field, file=str(path)) from None


def _services(top: Any, folder: Path) -> list[Service]:
    if not isinstance(top, Mapping):
        raise FdlError("holds no FDL document; write functions:, below it oscar:, and a list of services")
    for key in top:
        if key not in _TOP:
            close = did_you_mean(str(key), _TOP)
            mend = f'write "{close}"' if close else "the known keys are " + ", ".join(_TOP)
            raise FdlError(f"is no key that OSCAR knows here; {mend}", field=str(key))
    shared = {name: _mapping(top.get(name), name) for name in ("storage_providers", "clusters")}
    _check(StorageProviders, shared["storage_providers"], "storage_providers")
    for name, cluster in shared["clusters"].items():
        _check(Cluster, cluster, f"clusters.{name}")
    services: list[Service] = []
    for index, entry in enumerate(_entries(top)):
        field = f"functions.oscar[{index}]"
        try:
            service = _service(entry, shared, folder)
        except FdlError as error:
            raise error.below(field) from None
        for first, other in enumerate(services):
            if (other.cluster_id, other.name) == (service.cluster_id, service.name):
                problem = f'"{service.name}" is the name of functions.oscar[{first}] too; write another'
                raise FdlError(problem, field=f"{field}.name")
        services.append(service)
    return services


def _entries(top: Mapping[str, Any]) -> list[Any]:
    functions = _mapping(top.get("functions"), "functions")
    for key in functions:
        if key != "oscar":
            raise FdlError('is no key that OSCAR knows here; write "oscar"', field=f"functions.{key}")
    entries = functions.get("oscar")
    if not isinstance(entries, list) or not entries:
        raise FdlError(
            'is no list of services; write "- dioscar:" for each and indent its fields', field="functions.oscar"
        )
    return entries


def _service(entry: Any, shared: Mapping[str, Mapping[str, Any]], folder: Path) -> Service:
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise FdlError('must hold one key, a cluster\'s name, over a service; write "- dioscar:" and indent its fields')
    ((cluster, fields),) = entry.items()
    if not isinstance(fields, Mapping):
        raise FdlError("holds no service; indent name, image, script and the rest below it", field=str(cluster))
    if fields.get("cluster_id", cluster) != cluster:
        problem = f'"{fields["cluster_id"]}" differs from the key above the service; write "{cluster}"'
        raise FdlError(problem, field="cluster_id")
    fields = {**fields, "cluster_id": str(cluster)}
    for name, common in shared.items():
        if common and isinstance(fields.get(name) or {}, Mapping):
            fields[name] = _merge(common, fields.get(name) or {})
    if isinstance(fields.get("script"), str) and fields["script"]:
        fields["script"] = _script(fields["script"], folder)
    return service_from_entry(fields)


def _merge(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The file's definitions below a service's own, identifier by identifier."""
    merged = {**common}
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(common.get(key), Mapping)
        merged[key] = {**common[key], **value} if both else value
    return merged


def _script(name: str, folder: Path) -> str:
    path = folder / name
    if Path(name).is_absolute():
        raise FdlError(f'"{name}" is an absolute path; write one relative to the FDL file', field="script")
    what = f"is no file in {folder}/"
    text = ""
    try:
        if path.is_file():
            text, what = _read(path).decode(), ""
    except UnicodeDecodeError:
        what = "is no UTF-8 text"
    except (OSError, ValueError) as error:  # a name may be too long for one, or have a NUL
        what = f"cannot be read ({getattr(error, 'strerror', None) or error})"
    if what:
        raise FdlError(f"{quoted(name)} {what}; write the path of a POSIX sh script", field="script")
    if not text.strip():
        raise FdlError(f"{quoted(name)} is empty; write into it what runs on an event", field="script")
    return text


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    if value is None and field != "functions":
        return {}
    if not isinstance(value, Mapping):
        raise FdlError("is missing; add it" if value is None else "is no mapping; write a mapping", field=field)
    return value


def _check(model: type[Part], value: Any, field: str) -> None:
    try:
        model.model_validate(fold(model, value, strict=True, field=field), context={"strict": True})
    except ValidationError as error:
        below, problem = sentence(error.errors(include_url=False)[0])
        raise FdlError(problem, field=f"{field}.{below}".rstrip(".")) from None


class _Loader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, since one of its values would be lost in silence."""


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                problem = f'line {key.start_mark.line + 1}: the key "{key.value}" stands here twice; remove one'
                raise FdlError(problem)
            seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)


def _read(path: Path) -> bytes:
    """A file that is small if it is what it should be. Raises FdlError where it is not."""
    with path.open("rb") as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise FdlError(
            f"{path.name} is larger than {LARGEST >> 20} MiB; no declaration and no script is: check the path"
        )
    return data


def _expanded(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, those of its aliases counted each time."""
    if id(node) not in known:
        known[id(node)] = 0  # one that holds itself is refused when it is constructed
        total = 1
        if isinstance(node, yaml.SequenceNode):
            total += sum(_expanded(child, known) for child in node.value)
        elif isinstance(node, yaml.MappingNode):
            total += sum(_expanded(child, known) for pair in node.value for child in pair)
        known[id(node)] = total
    return known[id(node)]


def _load(path: Path) -> Any:
    try:
        text = _read(path).decode()
    except FileNotFoundError:
        raise FdlError("there is no such file; check the path") from None
    except IsADirectoryError:
        raise FdlError("is a folder; name a file in it") from None
    except OSError as error:
        raise FdlError(f"cannot be read ({error.strerror}); check its permissions") from None
    except UnicodeDecodeError:
        raise FdlError("is no UTF-8 text; save it as UTF-8") from None
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None and _expanded(node, {}) > MOST_NODES:
            raise FdlError(f"holds more than {MOST_NODES} values, aliases counted in full; write it without them")
        return None if node is None else loader.construct_document(node)
    except RecursionError:
        raise FdlError("is nested too deeply for a declaration; mend the indentation or the brackets") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = error.problem or error.context or "not understood"
        raise FdlError(f"{line}is no YAML ({problem}); mend the indentation or quote the value") from None
    except yaml.YAMLError as error:
        raise FdlError(f"is no YAML ({' '.join(str(error).split())}); save it as plain text") from None
    except (ValueError, TypeError, OverflowError) as error:
        raise FdlError(f"holds a value that YAML cannot read ({error}); quote it") from None
    finally:
        if loader is not None:
            loader.dispose()
