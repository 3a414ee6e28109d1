"""The supervisor kit for plain processes: the folder that OSCAR's init container copies into each pod."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

SCRIPT = """#!/bin/sh
# Starts DiOSCAR's supervisor with the Python that the cluster runs on, which its script then finds as python3.
PATH={bin}:$PATH
PYTHONUNBUFFERED=1
export PATH PYTHONUNBUFFERED
{more}exec {python} -P -m layers.runtime.supervisor
"""


def make_kit(folder: Path, environ: Mapping[str, str]) -> Path:
    """Write the kit of this Python to `folder`, which is returned; where users' own twins are, it knows too."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    more = ""
    if environ.get("PYTHONPATH"):
        paths = [str(Path(part).resolve()) for part in environ["PYTHONPATH"].split(os.pathsep) if part]
        more = f"PYTHONPATH={shlex.quote(os.pathsep.join(paths))}; export PYTHONPATH\n"
    python = Path(sys.executable)
    text = SCRIPT.format(bin=shlex.quote(str(python.parent)), python=shlex.quote(str(python)), more=more)
    supervisor = folder / "supervisor"
    if not supervisor.is_file() or supervisor.read_text(encoding="utf-8") != text:
        part = folder / ".supervisor.part"
        part.write_text(text, encoding="utf-8")
        part.chmod(0o755)
        part.replace(supervisor)
    return folder
