"""Hangs as soon as it is imported."""

import time
from pathlib import Path

time.sleep(600)


def run(source: Path, destination: Path, settings: object) -> None:
    raise AssertionError("unreachable")
