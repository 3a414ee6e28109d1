"""What functions that can be imported here would say of the variables that their services give them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fdl.model import Service

PATIENCE_S = 60.0


def preflight(services: Iterable["Service"]) -> Iterator[str]:
    """A sentence for each variable of a DiOSCAR function that is misspelt, missing or no value that it takes."""
    wanted = {
        service.name: {**service.environment.variables, **service.environment.secrets}
        for service in services
        if "DIOSCAR_FUNCTION" in service.environment.variables
    }
    if not wanted:
        return
    try:
        asked = subprocess.run(
            [sys.executable, "-P", "-m", "layers.runtime.preflight"],
            input=json.dumps(wanted),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            check=True,
        )
        found: dict[str, list[str]] = json.loads(asked.stdout)
    except (subprocess.SubprocessError, OSError, ValueError):
        return  # a module that ends or holds up the process that imports it shows that when it runs
    for name, sentences in found.items():
        for sentence in sentences:
            yield f"{name}: {sentence}"
