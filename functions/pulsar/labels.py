"""What a frame may contain, and the nine names a frame may carry."""

from collections.abc import Sequence

import numpy as np

from functions.pulsar.arrays import Flags, Positions

COMPONENTS = ("pulse", "nbrfi", "bbrfi", "other")
"""Order of the network's outputs and of every `labels` array.

- `pulse`: a dispersed pulse of a source in the sky, delayed as nu^-2.
- `nbrfi`: narrow-band interference, in a small part of the band. A carrier that was there before the observation
  began, or that has stayed on for longer than the running bandpass takes to absorb it, is bandpass, not interference.
- `bbrfi`: broad-band interference, in most of the band in the same samples (no dispersion).
- `other`: nothing of these: a sweep of the wrong sign, a dropout, a gain step, saturation. It excludes the rest.
"""

SNR_MIN = 7.0
"""A component is present from this in-frame signal-to-noise ratio on: sqrt(sum (s/sigma)^2) over the frame's cells."""

CLASSES = (
    "none",
    "pulse",
    "nbrfi",
    "bbrfi",
    "pulse+nbrfi",
    "pulse+bbrfi",
    "nbrfi+bbrfi",
    "pulse+nbrfi+bbrfi",
    "other",
)


def class_name(present: Sequence[bool] | Flags) -> str:
    """The class of a frame in which the given COMPONENTS are present; `other` excludes the rest.

    >>> class_name([True, False, True, False])
    'pulse+bbrfi'
    >>> class_name([False, False, False, False])
    'none'
    >>> class_name([True, False, False, True])
    'other'
    """
    if present[3]:
        return "other"
    return "+".join(name for name, there in zip(COMPONENTS[:3], present[:3], strict=True) if there) or "none"


def components_of(name: str) -> Flags:
    """Inverse of `class_name`: which COMPONENTS a class has, shape (4,).

    >>> components_of("pulse+nbrfi").tolist()
    [True, True, False, False]
    """
    if name not in CLASSES:
        raise ValueError(f'"{name}" is no class; write one of {", ".join(CLASSES)}')
    parts = name.split("+")
    return np.array([component in parts for component in COMPONENTS])


def class_indices(present: Flags) -> Positions:
    """Index in CLASSES of each row of a (frames, 4) boolean array."""
    combination = present[:, 0] + 2 * present[:, 1] + 4 * present[:, 2].astype(np.int64)
    return np.where(present[:, 3], CLASSES.index("other"), _OF_COMBINATION[combination])


_OF_COMBINATION = np.array(
    [CLASSES.index(class_name([bool(n & 1), bool(n & 2), bool(n & 4), False])) for n in range(8)], dtype=np.int64
)
