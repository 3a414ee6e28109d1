"""Tells when it ran; for measuring, so unlike every real function its bytes carry a clock."""

import time
from pathlib import Path

REPLY = "*.time"


def run(source: Path, destination: Path, settings: object) -> None:
    (destination / f"{source.name}.time").write_text(repr(time.time()))
