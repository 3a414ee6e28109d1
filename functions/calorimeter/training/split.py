"""Which showers of a file are held out: chosen by the file's SHA-256 and each shower's number, evenly in energy.

Nothing but the file and the part decides, so whoever has both (a validation that must not test on what was learned, or
must know what was) finds the same showers again.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from functions.calorimeter.showers import Floats

Flags = NDArray[np.bool_]

HELD_OUT, WATCHED = "held out", "watched"
"""Purposes of a choice: for the validation, and for the score by which a training stops."""


def held_out(sha256: str, energy_gev: Floats, part: float, purpose: str = HELD_OUT) -> Flags:
    """Whether each of a file's showers is held out, shape (n,); `energy_gev` are those of all of them, in its order.

    The showers are cut into slices of equal counts by their energy, and one of each slice is held out, so that
    `part` of them are, rounded, at all energies alike.

    >>> held_out("ab" * 32, np.arange(10.0), 0.2).sum()
    np.int64(2)
    """
    found = np.zeros(len(energy_gev), bool)
    slices = round(part * len(energy_gev))
    if slices:
        lots = np.array([_lot(sha256, number, purpose) for number in range(len(energy_gev))], np.uint64)
        for some in np.array_split(np.argsort(energy_gev, kind="stable"), slices):
            found[some[np.argmin(lots[some])]] = True
    return found


def _lot(sha256: str, number: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{sha256} {number} {purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
