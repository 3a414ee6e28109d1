"""The folders that runs see as HOME where they are isolated: one for each service, which goes with it."""

import shutil
from collections.abc import Iterable
from pathlib import Path


class Homes:
    """Below the data folder: what a run leaves in its home, the next one of the same service finds."""

    def __init__(self, data: Path) -> None:
        self._folder = data / "homes"

    def of(self, service: str) -> Path:
        """The home of a service; made where it is missing."""
        folder = self._folder / service
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def forget(self, service: str) -> Path | None:
        """Take the home of a service that has gone out of the way: from now on another of its name has one of its own.

        Returns what is to be removed.
        """
        gone = self._folder / f".{service}"
        shutil.rmtree(gone, ignore_errors=True)
        try:
            return (self._folder / service).rename(gone)
        except FileNotFoundError:
            return None

    def keep(self, services: Iterable[str]) -> None:
        """Remove all homes but those of these services."""
        if self._folder.is_dir():
            kept = set(services)
            for folder in self._folder.iterdir():
                if folder.name not in kept:
                    shutil.rmtree(folder, ignore_errors=True)
