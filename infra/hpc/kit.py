"""The supervisor kit for plain processes: the folder that OSCAR's init container copies into each pod."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.hpc.settings import Settings

IMAGE, TARGET = "*supervisor*", "/supervisor"
"""The image that brings the supervisor into a pod, and where in it the supervisor is."""

SCRIPT = """#!/bin/sh
# Starts DiOSCAR's supervisor with the Python that wrote this file, which its script then finds as python3.
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


def brings_kit(settings: "Settings") -> bool:
    """Whether plain processes get this Python's kit: the setting `images` may name another."""
    return settings.runtime == "process" and not any(TARGET in folders for folders in settings.images.values())


def with_kit(settings: "Settings", environ: Mapping[str, str]) -> "Settings":
    """The settings, with a kit below the root where they name none. Raises OSError."""
    if not brings_kit(settings):
        return settings
    kit = make_kit(settings.root / "kit", environ)
    folders = {**settings.images.get(IMAGE, {}), TARGET: str(kit)}
    return settings.model_copy(update={"images": {**settings.images, IMAGE: folders}})
