"""Showers in ROOT files: the tree `showers`, one entry for each, with its hits as two arrays; and how they were made.

Branches: `energy` (GeV), `theta` (rad), `hits_cell` and `hits_edep` (MeV), and the lengths of these two, as ROOT wants.
The string `simulation` beside the tree is a JSON object with geometry, particle, engine and physics.
"""

import contextlib
import datetime
import json
import math
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np

from functions.calorimeter.checks import check_primaries, read_about
from functions.calorimeter.showers import Counts, Energies, Showers
from layers.runtime import InputError

TREE = "showers"
ABOUT = "simulation"
BRANCHES = ("energy", "theta", "hits_cell", "hits_edep")
EPOCH = datetime.datetime(1995, 1, 1)  # noqa: DTZ001 - the earliest time that ROOT's format can tell
IDENTITY = uuid.UUID(int=0)
BROKEN = "is truncated or damaged, or its branches hold no numbers; write it with calorimeter-simulate"


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
        _check_kind(path)
        try:
            self._file = uproot.open(path, array_cache=None)  # every shower is read once
            there = self._file.keys(cycle=False)
            text, tree = (self._file[name] if name in there else None for name in (ABOUT, TREE))
            names = [] if tree is None else tree.keys()
        except Exception:  # whatever uproot meets in a broken file: it has no family of its own for that
            raise InputError(f"{path.name}: {BROKEN}") from None
        for name, kind, found in ((TREE, "tree", tree), (ABOUT, "text", text)):
            if found is None:
                raise InputError(f'{path.name}: has no {kind} "{name}"; write it with calorimeter-simulate')
        if missing := [name for name in BRANCHES if name not in names]:
            raise InputError(
                f'{path.name}: its tree "{TREE}" has no branch "{missing[0]}"; write it with calorimeter-simulate'
            )
        self._tree: Any = tree
        self.about, self.geometry = read_about(str(text), f"{path.name}: {ABOUT}")

    def __enter__(self) -> "ShowersFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return int(self._tree.num_entries)

    def read(self, chunk: int = 256) -> Iterator[Showers]:
        """All showers, `chunk` at a time; hits of one cell are added. Raises InputError for what cannot be."""
        for start in range(0, len(self), chunk):
            yield self._part(start, start + chunk)

    def _part(self, start: int, stop: int) -> Showers:
        import awkward

        try:
            arrays = self._tree.arrays(BRANCHES, entry_start=start, entry_stop=stop)
            energy, theta = (arrays[name].to_numpy().astype(np.float64) for name in ("energy", "theta"))
            hits, others = (awkward.num(arrays[name]).to_numpy() for name in ("hits_cell", "hits_edep"))
            cell, edep = (awkward.flatten(arrays[name]).to_numpy() for name in ("hits_cell", "hits_edep"))
            whole = energy.ndim == theta.ndim == 1 and (not len(cell) or cell.dtype.kind in "iu")
            edep = edep.astype(np.float32)
        except Exception:  # whatever uproot and awkward meet in a broken file
            raise InputError(f"{self._name}: {BROKEN}") from None
        if not whole:
            raise InputError(
                f"{self._name}: energy and theta are to be a number for each shower, and hits_cell whole numbers; write"
                " it with calorimeter-simulate"
            )
        if (hits != others).any():
            raise InputError(f"{self._name}: has hits with a cell and no energy; write it again")
        offsets = np.concatenate([[0], np.cumsum(hits)]).astype(np.int64)
        check_primaries(energy, theta, start, self._name)
        self._check_hits(cell, edep, offsets, start)
        return added(Showers(energy, theta, offsets, cell.astype(np.uint32), edep))

    def _check_hits(self, cell: Any, edep: Energies, offsets: Counts, start: int) -> None:
        bad = ~(np.isfinite(edep) & (edep >= 0))
        if bad.any():
            number = start + int(np.searchsorted(offsets, np.argmax(bad), side="right")) - 1
            raise InputError(
                f"{self._name}: shower {number} has a cell with a negative energy or none; simulate it again"
            )
        cells = math.prod(self.geometry.shape)
        beyond = (cell < 0) | (cell >= cells)
        if beyond.any():
            raise InputError(
                f"{self._name}: has a cell {cell[np.argmax(beyond)]}, and its geometry {cells}; it is of another"
                " detector"
            )


def _check_kind(path: Path) -> None:
    """Raise InputError for what is no ROOT file by its first bytes."""
    with path.open("rb") as stream:
        start = stream.read(4)
    if start == b"root":
        return
    what = "is empty" if not start else "is no ROOT file"
    if start == b"\x89HDF":
        what = "is an HDF5 file, no ROOT file; showers in HDF5 are prepared already"
    raise InputError(f"{path.name}: {what}; send what calorimeter-simulate writes")


def added(showers: Showers) -> Showers:
    """The same showers with each cell once, in ascending order, and none without energy."""
    shower = np.repeat(np.arange(len(showers)), showers.hits)
    if (
        not ((np.diff(shower) > 0) | (np.diff(showers.cell.astype(np.int64)) > 0)).all()
        or (showers.edep_mev == 0).any()
    ):
        largest = int(showers.cell.max()) + 1
        place, back = np.unique(shower * largest + showers.cell, return_inverse=True)
        edep = np.bincount(back, showers.edep_mev, len(place)).astype(np.float32)
        place, edep = place[edep > 0], edep[edep > 0]
        hits = np.bincount(place // largest, minlength=len(showers))
        offsets = np.concatenate([[0], np.cumsum(hits)]).astype(np.int64)
        return Showers(showers.energy_gev, showers.theta, offsets, (place % largest).astype(np.uint32), edep)
    return showers


@contextlib.contextmanager
def _timeless() -> Iterator[None]:
    """uproot writes the time into every header, which would make the same showers another file each time."""
    import uproot.writing._cascade as cascade
    import uproot.writing._cascadetree as cascadetree

    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda: EPOCH))
    with mock.patch.object(cascade, "datetime", clock), mock.patch.object(cascadetree, "datetime", clock):
        yield
