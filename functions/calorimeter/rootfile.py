"""Showers in ROOT files: the tree `showers`, one entry for each, with its hits as two arrays; and how they were made.

Branches: `energy` (GeV), `theta` (rad), `hits_cell` and `hits_edep` (MeV), and the lengths of these two, as ROOT wants.
The string `simulation` beside the tree is a JSON object with geometry, particle, engine and physics.
"""

import contextlib
import datetime
import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from functions.calorimeter.checks import check_primaries
from functions.calorimeter.geometry import Geometry, geometry_from_json
from functions.calorimeter.showers import Showers
from layers.runtime import InputError

TREE = "showers"
ABOUT = "simulation"
BRANCHES = ("energy", "theta", "hits_cell", "hits_edep")
EPOCH = datetime.datetime(1995, 1, 1)  # noqa: DTZ001 - the earliest time that ROOT's format can tell
IDENTITY = uuid.UUID(int=0)


def write_showers(path: Path, about: dict[str, Any], parts: Iterable[Showers]) -> int:
    """Write the showers of `parts`, in bounded memory; the same showers give the same bytes. Returns how many."""
    import awkward
    import uproot

    count = 0
    with _timeless(), uproot.recreate(path, uuid_function=lambda: IDENTITY) as file:
        file[ABOUT] = json.dumps(about, sort_keys=True)
        jagged = {"cell": "var * uint32", "edep": "var * float32"}
        types = {"energy": "float64", "theta": "float64"}
        tree = file.mktree(TREE, {**types, **{f"hits_{name}": kind for name, kind in jagged.items()}})
        for part in parts:
            hits = {
                "hits_cell": awkward.unflatten(part.cell, part.hits),
                "hits_edep": awkward.unflatten(part.edep_mev, part.hits),
            }
            tree.extend({"energy": part.energy_gev, "theta": part.theta, **hits})
            count += len(part)
    return count


class ShowersFile:
    """A ROOT file of showers, opened for reading; what is wrong with it is one sentence."""

    def __init__(self, path: Path) -> None:
        import uproot

        self._name = path.name
        try:
            self._file = uproot.open(path)
            self.about: dict[str, Any] = json.loads(str(self._file[ABOUT]))
            tree = self._file[TREE]
        except (OSError, ValueError, KeyError, TypeError, uproot.exceptions.KeyInFileError) as error:
            raise InputError(self._told(error)) from None
        missing = [name for name in BRANCHES if name not in tree.keys()]  # noqa: SIM118 - it is no mapping
        if missing:
            raise InputError(
                f'{path.name}: its tree "{TREE}" has no branch "{missing[0]}"; write it with calorimeter-simulate'
            )
        self._tree = tree
        self.geometry: Geometry = geometry_from_json(self.about.get("geometry", {}), f"{path.name}: {ABOUT}.geometry")

    def __enter__(self) -> "ShowersFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return int(self._tree.num_entries)

    def read(self, chunk: int = 256) -> Iterator[Showers]:
        """All showers, `chunk` at a time. Raises InputError for energies and cells that cannot be."""
        import awkward

        cells = int(np.prod(self.geometry.shape))
        for start in range(0, len(self), chunk):
            try:
                arrays = self._tree.arrays(BRANCHES, entry_start=start, entry_stop=start + chunk)
            except Exception as error:  # whatever uproot meets in a broken file
                raise InputError(self._told(error)) from None
            hits = awkward.num(arrays["hits_cell"]).to_numpy()
            if (hits != awkward.num(arrays["hits_edep"]).to_numpy()).any():
                raise InputError(f"{self._name}: has hits with a cell and no energy; write it again")
            part = Showers(
                arrays["energy"].to_numpy().astype(np.float64),
                arrays["theta"].to_numpy().astype(np.float64),
                np.concatenate([[0], np.cumsum(hits)]).astype(np.int64),
                awkward.flatten(arrays["hits_cell"]).to_numpy().astype(np.uint32),
                awkward.flatten(arrays["hits_edep"]).to_numpy().astype(np.float32),
            )
            self._check(part, start, cells)
            yield part

    def _check(self, part: Showers, start: int, cells: int) -> None:
        check_primaries(part.energy_gev, part.theta, start, self._name)
        bad = ~(np.isfinite(part.edep_mev) & (part.edep_mev >= 0))
        if bad.any():
            number = start + int(np.searchsorted(part.offsets, np.argmax(bad), side="right")) - 1
            raise InputError(
                f"{self._name}: shower {number} has a cell with a negative energy or none; simulate it again"
            )
        if len(part.cell) and part.cell.max() >= cells:
            raise InputError(
                f"{self._name}: has a cell {part.cell.max()}, and its geometry {cells}; it is of another detector"
            )

    def _told(self, error: BaseException) -> str:
        what = " ".join(str(error).split())[:200]
        mend = "write it with calorimeter-simulate"
        return f'{self._name}: is no ROOT file with a tree "{TREE}" of showers ({what}); {mend}'


@contextlib.contextmanager
def _timeless() -> Iterator[None]:
    """uproot writes the time into every header, which would make the same showers another file each time."""
    import uproot.writing._cascade as cascade
    import uproot.writing._cascadetree as cascadetree

    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: EPOCH))
    with mock.patch.object(cascade, "datetime", clock), mock.patch.object(cascadetree, "datetime", clock):
        yield
