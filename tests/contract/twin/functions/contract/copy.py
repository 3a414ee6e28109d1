"""Two files, one of them the reply; settings in their content."""

import json
from dataclasses import dataclass
from pathlib import Path

REPLY = "*.copy"


@dataclass(frozen=True)
class Settings:
    greeting: str = "hello"
    times: int = 1


def run(source: Path, destination: Path, settings: Settings) -> None:
    (destination / f"{source.name}.copy").write_bytes(source.read_bytes() * settings.times)
    facts = {"greeting": settings.greeting, "times": settings.times}
    (destination / f"{source.name}.json").write_text(json.dumps(facts))
    nested = destination / "deeper"
    nested.mkdir()
    (nested / f"{source.name}.txt").write_text(settings.greeting)
    print(f"copied {source.name}")
