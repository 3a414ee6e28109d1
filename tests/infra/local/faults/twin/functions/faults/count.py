"""Copies its input, and leaves a mark outside of its outputs each time it runs."""

import os
from pathlib import Path


def run(source: Path, destination: Path, settings: object) -> None:
    with (Path(os.environ["HOME"]) / f"ran-{os.environ['OSCAR_SERVICE_NAME']}").open("a") as marks:
        marks.write("x")
    (destination / f"{source.name}.copy").write_bytes(source.read_bytes())
