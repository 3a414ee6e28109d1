"""A file of schedules, read strictly: times stay text, and no key stands twice."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from events.schedules import Schedule, ScheduleError, read

LARGEST = 1 << 20
"""Bytes of a file of schedules."""
TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Loader(yaml.SafeLoader):
    """YAML in which a time is text, and a key that stands twice an error."""


def read_file(path: Path | str) -> tuple[dict[str, Any], list[Schedule]]:
    """A file's document, for a cluster that reads it again, and its schedules. Raises ScheduleError."""
    try:
        document = _load(Path(path))
        return document, read(document)
    except ScheduleError as error:
        raise ScheduleError(error.problem, error.field, str(path)) from None


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ScheduleError(f"is larger than {LARGEST >> 20} MiB, and no file of schedules; check the path")
        return yaml.load(data.decode(), _Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise ScheduleError("there is no such file; check the path") from None
    except OSError as error:
        raise ScheduleError(f"cannot be read ({error.strerror}); check the path and its permissions") from None
    except UnicodeDecodeError:
        raise ScheduleError("is no UTF-8 text; save it as UTF-8") from None
    except RecursionError:
        raise ScheduleError("is nested too deeply; mend the indentation or the brackets") from None
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ScheduleError(f"{line}is no YAML ({error.problem}); mend the indentation or quote the value") from None
    except yaml.YAMLError as error:
        raise ScheduleError(f"is no YAML ({' '.join(str(error).split())}); save it as plain text") from None


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ScheduleError(f'line {line}: the key "{key.value}" stands here twice; remove one')
            seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != TIMESTAMP]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
