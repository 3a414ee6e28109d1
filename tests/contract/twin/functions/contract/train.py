"""Counts steps over its inputs; stops on request, goes on from its checkpoint."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from layers.runtime import Checkpointed, Job, read_request


@dataclass(frozen=True)
class Request:
    steps: int
    pause_s: float = 0.0


@dataclass(frozen=True)
class Settings:
    pass


def run(source: Path, destination: Path, settings: Settings, job: Job) -> None:
    request = read_request(Request, source)
    state = job.checkpoint / "state.json"
    saved = json.loads(state.read_text()) if state.exists() else {"done": 0, "starts": 0}
    saved["starts"] += 1
    while saved["done"] < request.steps:
        saved["done"] += 1
        job.progress(saved["done"], request.steps)
        state.write_text(json.dumps(saved))
        job.keep()
        time.sleep(request.pause_s)
        if job.stopping:
            raise Checkpointed(f"at step {saved['done']}")
    texts = [given.path.read_text() for given in job.inputs]
    result = {
        "steps": saved["done"],
        "starts": saved["starts"],
        "keys": [given.key for given in job.inputs],
        "texts": texts,
        "seed": job.seed,
    }
    (destination / f"{source.name}.model").write_text(json.dumps(result))
