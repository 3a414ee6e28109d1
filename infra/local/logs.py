"""The cluster's own log: lines for people, or JSON for whatever collects them."""

import logging
import sys
from typing import Literal

Format = Literal["text", "json"]


def configure(form: Format, level: str = "INFO") -> None:
    """Log to standard error; in JSON, what a message is about (job, service, state) stands in fields of its own."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        from pythonjsonlogger.json import JsonFormatter

        handler.setFormatter(
            JsonFormatter(
                "{asctime}{levelname}{name}{message}",
                style="{",
                rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
                datefmt="%Y-%m-%dT%H:%M:%S%z",
            )
        )
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
