"""Fails in the way that its input says, after it has written half of an output."""

import os
import sys
import time
from pathlib import Path

from layers.runtime import InputError, Job


def run(source: Path, destination: Path, settings: object, job: Job) -> None:
    (destination / "half.bin").write_bytes(b"half")
    how = source.read_text()
    if how == "bad input":
        raise InputError(f"{source.name}: is no telescope file; write SIGPROC")
    if how == "bad input at length":
        raise InputError(f"{source.name}: is no telescope file: {'0' * 1_000_000}; write SIGPROC")
    if how == "error":
        raise ValueError("a defect of the function")
    if how == "crash":
        os._exit(3)
    if how == "exit":
        sys.exit(0)
    if how == "hang":
        while not job.stopping:
            time.sleep(0.01)
        time.sleep(600)
    if how == "link":
        (destination / "passwd").symlink_to("/etc/passwd")
