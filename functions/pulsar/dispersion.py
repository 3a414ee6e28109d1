r"""The cold-plasma dispersion law, and sums along its tracks.

A pulse that arrives at infinite frequency at $t_0$ arrives at frequency $\nu$ at
$t_0 + K\,\mathrm{DM}\,\nu^{-2}$, $K = 4.148808$ ms GHz$^2$ cm$^3$ pc$^{-1}$
(Lorimer & Kramer, Handbook of Pulsar Astronomy, 2005, eq. 4.7).
"""

import numpy as np

from functions.pulsar.arrays import Floats

K_DM_S_MHZ2 = 4148.808
"""Dispersion constant, s MHz^2 / (pc cm^-3). Some papers round it to 4150, and one misprints 4188.8."""


def delay_s(dm_pc_cm3: float | Floats, frequency_mhz: float | Floats, reference_mhz: float) -> Floats:
    r"""Arrival time at `frequency_mhz` after that at `reference_mhz`, s.

    $\Delta t = K\,\mathrm{DM}\,(\nu^{-2} - \nu_\mathrm{ref}^{-2})$.

    The Crab pulsar sweeps the band from 1530.6 to 1210.6 MHz in 60.2 ms:

    >>> round(float(delay_s(56.77, 1210.625, 1530.625)) * 1e3, 1)
    60.2
    """
    return np.asarray(K_DM_S_MHZ2 * dm_pc_cm3 * (np.power(frequency_mhz, -2.0) - reference_mhz**-2.0))


def smearing_s(dm_pc_cm3: float, frequency_mhz: float | Floats, channel_width_mhz: float) -> Floats:
    r"""Dispersive smearing inside one channel, s: $2 K\,\mathrm{DM}\,\Delta\nu\,\nu^{-3}$ (Lorimer & Kramer, eq. 5.2).

    >>> round(float(smearing_s(56.77, 1370.0, 1.25)) * 1e6)
    229
    """
    return np.asarray(2 * K_DM_S_MHZ2 * dm_pc_cm3 * abs(channel_width_mhz) * np.power(frequency_mhz, -3.0))


def dm_of_delay(delay: float | Floats, highest_mhz: float, lowest_mhz: float) -> Floats:
    """The DM, pc/cm^3, whose delay between two frequencies is `delay` s: inverse of `delay_s`.

    >>> round(float(dm_of_delay(0.06017, 1530.625, 1210.625)), 1)
    56.8
    """
    return np.asarray(delay / (K_DM_S_MHZ2 * (lowest_mhz**-2.0 - highest_mhz**-2.0)))


def dispersion_coordinate(frequency_mhz: Floats) -> Floats:
    """The coordinate in which dispersion is a straight line: nu^-2 from 0 (first row) to 1 (last row); rows descend.

    >>> dispersion_coordinate(np.array([2000.0, 1000.0])).tolist()
    [0.0, 1.0]
    """
    inverse = np.power(frequency_mhz, -2.0)
    span = inverse[-1] - inverse[0]
    if span <= 0:
        return np.linspace(0.0, 1.0, len(frequency_mhz))
    return np.asarray((inverse - inverse[0]) / span)


def sum_tracks(rows: Floats, coordinate: Floats, max_delay: int) -> Floats:
    """Sum `rows` along straight tracks in (`coordinate`, time): the fast dispersion measure transform.

    Args:
        rows: shape (R, T, ...), axis 1 is time; further axes are summed side by side.
        coordinate: shape (R,), increasing from 0 to 1 (`dispersion_coordinate`).
        max_delay: largest delay between first and last row, samples.

    Returns:
        shape (max_delay + 1, T, ...): element [d, t] is the sum over rows r of rows[r, t + round(d c_r)],
        up to one sample of rounding in each of the log2(R) merging steps; what lies after the end counts as 0.

    Source: Zackay & Ofek 2017, ApJ 835, 11 (the transform in a coordinate where tracks are straight).

    >>> impulse = np.zeros((4, 8), np.float32)
    >>> impulse[[0, 1, 2, 3], [1, 2, 3, 4]] = 1  # a track of delay 3 that begins at sample 1
    >>> float(sum_tracks(impulse, np.linspace(0, 1, 4), 3)[3, 1])
    4.0
    """
    blocks = [(row[None], first, first) for first, row in enumerate(rows)]
    while len(blocks) > 1:
        merged = [_merge(*blocks[i], *blocks[i + 1], coordinate, max_delay) for i in range(0, len(blocks) - 1, 2)]
        blocks = merged + blocks[len(merged) * 2 :]
    (sums, _, _) = blocks[0]
    return np.asarray(sums)


def _merge(
    upper: Floats,
    first: int,
    upper_last: int,
    lower: Floats,
    lower_first: int,
    last: int,
    coordinate: Floats,
    max_delay: int,
) -> tuple[Floats, int, int]:
    """Track sums over rows first..last from those over first..upper_last and lower_first..last."""
    span = coordinate[last] - coordinate[first]
    delays = int(np.ceil(max_delay * span - 1e-9))
    to_upper = (coordinate[upper_last] - coordinate[first]) / span if span > 0 else 0.0
    to_lower = (coordinate[lower_first] - coordinate[first]) / span if span > 0 else 0.0
    length = upper.shape[1]
    out = np.empty((delays + 1, *upper.shape[1:]), np.float32)
    for delay in range(delays + 1):
        offset = min(int(delay * to_lower + 0.5), length)
        above = min(int(delay * to_upper + 0.5), len(upper) - 1)
        below = min(delay - offset, len(lower) - 1)
        if offset:
            kept = length - offset
            np.add(upper[above, :kept], lower[below, offset:], out=out[delay, :kept])
            out[delay, kept:] = upper[above, kept:]
        else:
            np.add(upper[above], lower[below], out=out[delay])
    return out, first, last
