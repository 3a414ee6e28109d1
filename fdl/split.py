"""One FDL file for each service, for clients that deploy one at a time.

OSCAR's Python client sends the last function of a file only, wants the cluster's key to be its own identifier and `cpu`
to be there, and leaves out the file's common stores; its command-line clients differ in how they spell `variables`. A
file written here suits them all.
"""

from pathlib import Path
from typing import Any

import yaml

from fdl.document import Document
from fdl.model import Service
from fdl.plan import SERVER_FIELDS

ALWAYS = ("name", "memory", "cpu", "image", "log_level", "script", "environment")


def split(document: Document, folder: Path) -> tuple[Path, ...]:
    """Write `<service>.yaml` and `<service>.sh` for each service into `folder`; returns the YAML files."""
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(_write(service, folder) for service in document.by_name().values())


def _write(service: Service, folder: Path) -> Path:
    script = folder / f"{service.name}.sh"
    script.write_text(service.script, encoding="utf-8", newline="\n")
    path = folder / f"{service.name}.yaml"
    text = yaml.safe_dump(
        {"functions": {"oscar": [{service.cluster_id: _fields(service, script.name)}]}},
        sort_keys=False,
        allow_unicode=True,
        width=120,
    )
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def _fields(service: Service, script: str) -> dict[str, Any]:
    """What differs from the defaults, and what the clients insist on."""
    defaults = Service(name="a", image="a", script="a").to_json()
    fields: dict[str, Any] = {}
    for name, value in service.to_json().items():
        if name in SERVER_FIELDS or name == "cluster_id":
            continue
        if name in ALWAYS or value != defaults.get(name):
            fields[name] = value
    fields["script"] = script
    variables = service.environment.variables
    fields["environment"] = {"Variables": dict(variables), "variables": dict(variables)}
    if service.environment.secrets:
        fields["environment"]["secrets"] = dict(service.environment.secrets)
    return fields
