"""Whether showers are still what a model says of them: many quantities, one rate of false alarms, effects that matter.

Each shower is compared with generated ones of the same energy and angle, so the spread of energies cancels. A quantity
has drifted where its deviation exceeds, by more than chance, what the gate lets a model be off (`compare.BANDS`): a
model that passed its gate and a stream that stays as it is raise no alarm, however many showers there are. The
p-values are those of a minimum-effect test (Murphy and Myors, J. Appl. Psychol. 84 (1999) 234); Holm's step-down
procedure (Scand. J. Stat. 6 (1979) 65) holds the chance of any false alarm in a file to the rate that is asked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from functions.calorimeter.compare import BANDS, LEAST_IN_SLICE, LEAST_LAYER
from functions.calorimeter.geometry import Geometry
from functions.calorimeter.observables import observe
from functions.calorimeter.showers import Floats, Showers

READ = 0.25
"""By how much the part of the showers in which a layer is read may differ; no band of the gate is about it."""
SLICES = 4
SCALARS = ("hits", "depth", "depth_width", "width_x", "width_y", "angle")

Kind = Literal["relative", "absolute"]


@dataclass(frozen=True)
class Rows:
    """What the tests need of `n` showers, or of the mean over the showers generated for each of them."""

    energy_gev: Floats
    fraction: Floats
    """S/E, shape (n,)."""
    layers: Floats
    """S/E of each layer, (n, layers)."""
    read: Floats
    """Whether a layer has any cell above the threshold, (n, layers); of a mean, how often."""
    scalars: Floats
    """`SCALARS`, (n, 6); the angle is that of the cells minus the primary's, degrees, NaN where cells show none."""

    def __len__(self) -> int:
        return len(self.energy_gev)

    def means(self, count: int) -> "Rows":
        """The means over each `count` rows; of angles, over those that there are."""
        angles = self.scalars.reshape(-1, count, len(SCALARS))
        there = np.isfinite(angles)
        with np.errstate(invalid="ignore"):
            scalars = np.where(there, angles, 0.0).sum(axis=1) / there.sum(axis=1)
        parts = (self.energy_gev, self.fraction, self.layers, self.read)
        energy, fraction, layers, read = (part.reshape(-1, count, *part.shape[1:]).mean(axis=1) for part in parts)
        return Rows(energy, fraction, layers, read, scalars)

    def chosen(self, which: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> "Rows":
        """Some of the rows."""
        parts = (self.energy_gev, self.fraction, self.layers, self.read, self.scalars)
        return Rows(*(part[which] for part in parts))


def rows(showers: Showers, geometry: Geometry, threshold_mev: float) -> Rows:
    """The rows of showers, from cells above a threshold."""
    seen = observe(showers, geometry, threshold_mev)
    angle = np.degrees(seen.measured_theta - seen.theta)
    scalars = [seen.hits, seen.depth, seen.depth_width, seen.width_x, seen.width_y, angle]
    return Rows(
        seen.energy_gev,
        seen.sampling_fraction,
        seen.layers / (1e3 * seen.energy_gev[:, None]),
        (seen.layer_hits > 0).astype(np.float64),
        np.stack(scalars, axis=1),
    )


def joined(parts: Sequence[Rows]) -> Rows:
    """All rows, one part after the other."""
    names = ("energy_gev", "fraction", "layers", "read", "scalars")
    return Rows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True)
class Deviation:
    """One quantity of the stream against the model's."""

    name: str
    effect: float
    """Stream over model minus 1, or stream minus model where `unit` is not empty."""
    error: float
    """Its standard error."""
    tolerance: float
    unit: str
    p: float
    """The chance of such a deviation, were the true one as large as the tolerance."""
    drifted: bool = False


def deviations(stream: Rows, generated: Rows, per_shower: int, false_alarms: float) -> list[Deviation]:
    """All tests of `n` showers against `n` times `per_shower` generated ones, in the same order.

    `false_alarms` is the chance that any of them errs. Raises ValueError where the numbers of showers do not fit.
    """
    if len(generated) != per_shower * len(stream):
        raise ValueError(f"{len(generated)} generated showers are not {per_shower} for each of {len(stream)}")
    found = list(_deviations(stream, generated, generated.means(per_shower)))
    drifted = holm([test.p for test in found], false_alarms)
    return [replace(test, drifted=alarm) for test, alarm in zip(found, drifted, strict=True)]


def holm(p_values: Sequence[float], rate: float) -> list[bool]:
    """Which hypotheses Holm's procedure rejects, such that the chance to reject any true one is at most `rate`.

    >>> holm([0.5, 0.001, 0.02], 0.05)
    [False, True, True]
    """
    rejected = [False] * len(p_values)
    for done, place in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[place] > rate / (len(p_values) - done):
            break
        rejected[place] = True
    return rejected


def excess(effect: float, error: float, tolerance: float, count: int) -> float:
    """The p-value of a deviation against all true ones up to the tolerance, two-sided, by Student's t.

    >>> round(excess(0.05, 0.01, 0.02, 1000), 4), excess(0.01, 0.0, 0.02, 1000)
    (0.0014, 1.0)
    """
    from scipy.special import stdtr

    if not np.isfinite(effect) or count < 2:
        return 1.0
    if error <= 0:
        return 0.0 if abs(effect) > tolerance else 1.0
    high, low = (stdtr(count - 1, (side * tolerance - abs(effect)) / error) for side in (1, -1))
    return float(min(1.0, high + low))


def _deviations(stream: Rows, generated: Rows, means: Rows) -> Iterator[Deviation]:
    visible = BANDS["mean_visible"].must
    yield of_mean("visible", stream.fraction, means.fraction, visible)
    for low, high, chosen in slices(stream.energy_gev):
        yield of_mean(f"visible {low:g}-{high:g} GeV", stream.fraction[chosen], means.fraction[chosen], visible)
    yield _resolution(stream, generated)
    for layer in told_layers(means):
        yield of_mean(
            f"layer {layer}", stream.layers[:, layer], means.layers[:, layer], BANDS["longitudinal_profile"].must
        )
    for layer in range(stream.read.shape[1]):
        yield of_mean(f"layer {layer} read", stream.read[:, layer], means.read[:, layer], READ, "part")
    scalar = dict(zip(SCALARS, zip(stream.scalars.T, means.scalars.T, strict=True), strict=True))
    width = float(np.mean(scalar["depth_width"][1]))
    # a profile that is off by a part p in each layer has its centre off by at most p times its width (Cauchy, Schwarz)
    yield of_mean("depth", *scalar["depth"], BANDS["longitudinal_profile"].must * width, "layers")
    yield of_mean("hits", *scalar["hits"], BANDS["mean_hits"].must)
    for name in ("width_x", "width_y"):
        yield of_mean(name, *scalar[name], BANDS["lateral_profile"].must)
    yield of_mean("angle", *scalar["angle"], BANDS["angle_bias_deg"].must, "deg")


def slices(energy_gev: Floats) -> Iterator[tuple[float, float, "np.ndarray[tuple[int], np.dtype[np.bool_]]"]]:
    """Slices of energy with as many showers each: their edges in whole GeV or tenths, and which showers are in them."""
    count = min(SLICES, len(energy_gev) // LEAST_IN_SLICE)
    if count < 2:
        return
    edges = np.unique([float(f"{edge:.2g}") for edge in np.quantile(energy_gev, np.linspace(0, 1, count + 1)[1:-1])])
    ends = [energy_gev.min(), *(edge for edge in edges if energy_gev.min() < edge <= energy_gev.max()), np.inf]
    for low, high in pairwise(ends):
        chosen = (energy_gev >= low) & (energy_gev < high)
        if chosen.sum() >= LEAST_IN_SLICE:
            yield float(f"{low:.3g}"), float(f"{min(high, energy_gev.max()):.3g}"), chosen


def told_layers(means: Rows) -> list[int]:
    """The layers that hold enough of the energy for theirs to be compared."""
    mean = means.layers.mean(axis=0)
    return [int(layer) for layer in np.flatnonzero(mean > LEAST_LAYER * mean.sum())]


def of_mean(name: str, stream: Floats, model: Floats, tolerance: float, unit: str = "") -> Deviation:
    """The test of a mean: of the differences shower by shower, over the model's mean where there is no unit."""
    there = np.isfinite(stream) & np.isfinite(model)
    difference = (stream - model)[there]
    scale = 1.0 if unit else float(np.mean(model[there])) if there.any() else 0.0
    count = len(difference)
    if count < 2 or scale <= 0:
        return Deviation(name, float("nan"), float("nan"), tolerance, unit, 1.0)
    effect = float(difference.mean()) / scale
    error = float(difference.std(ddof=1)) / np.sqrt(count) / scale
    return Deviation(name, effect, float(error), tolerance, unit, excess(effect, float(error), tolerance, count))


def _resolution(stream: Rows, generated: Rows) -> Deviation:
    """The width of S/E about the model's mean at each energy, stream over model."""
    log_energy = np.log(generated.energy_gev)
    bent = 2 if np.ptp(log_energy) > 0.1 else 0
    mean = np.polynomial.Polynomial.fit(log_energy, generated.fraction, bent, domain=_domain(log_energy))
    spread = [sample.fraction / mean(np.log(sample.energy_gev)) for sample in (stream, generated)]
    one, two = (float(values.std(ddof=1)) for values in spread)
    tolerance = BANDS["resolution"].must
    if two <= 0:
        return Deviation("resolution", float("nan"), float("nan"), tolerance, "", 1.0)
    ratio = one / two
    # variance of the logarithm of a standard deviation: (kurtosis - 1) / 4n
    variances = [max(_kurtosis(values) - 1, 0.0) / (4 * len(values)) for values in spread]
    error = ratio * float(np.sqrt(sum(variances)))
    return Deviation("resolution", ratio - 1, error, tolerance, "", excess(ratio - 1, error, tolerance, len(stream)))


def _domain(values: Floats) -> list[float]:
    low, high = float(values.min()), float(values.max())
    return [low, high if high > low else low + 1.0]


def _kurtosis(values: Floats) -> float:
    off = values - values.mean()
    variance = float(np.mean(off**2))
    return float(np.mean(off**4)) / variance**2 if variance > 0 else 1.0


def causes(stream: Rows, means: Rows, found: Iterable[Deviation]) -> list[str]:
    """What the tests that have drifted come from, a sentence each, the most particular first; none, where none has.

    Layers that read nothing and layers that read otherwise than the rest explain what follows from them, so the rest
    is looked at without them.
    """
    drifted = {test.name: test for test in found if test.drifted}
    if not drifted:
        return []
    silent = [n for n in range(stream.read.shape[1]) if f"layer {n} read" in drifted and not stream.read[:, n].any()]
    if set(told_layers(means)) <= set(silent):
        return ["no layer reads anything"]
    told = [f"layer {layer} reads nothing" for layer in silent]
    common, off = _odd_layers(stream, means, silent, drifted)
    told += [f"layer {n} reads {_percent(part)}, apart from the others" for n, part in off]
    healthy = [n for n in told_layers(means) if n not in silent and n not in dict(off)]
    rest = _gain(stream, means, healthy)
    if rest is not None and "depth" not in drifted:
        told.append(f"all {'other ' if told else ''}layers read {_percent(rest.effect)}: gain")
    if told:
        return told
    return _others(drifted, common)


def _odd_layers(
    stream: Rows, means: Rows, silent: Sequence[int], drifted: dict[str, Deviation]
) -> tuple[float, list[tuple[int, float]]]:
    """The factor that most layers have in common, and the layers that are off from it by more than a model may be."""
    alive = [layer for layer in told_layers(means) if layer not in silent]
    if not alive:
        return 1.0, []
    ratios = stream.layers[:, alive].mean(axis=0) / means.layers[:, alive].mean(axis=0)
    common = float(np.median(ratios))
    off = []
    for layer, ratio in zip(alive, ratios, strict=True):
        if f"layer {layer}" not in drifted:
            continue
        tolerance = BANDS["longitudinal_profile"].must
        test = of_mean("", stream.layers[:, layer], common * means.layers[:, layer], tolerance)
        if test.p < 0.01:
            off.append((layer, float(ratio) - 1))
    # a profile of another shape has many layers that are off, and none to be blamed
    return common, off if len(off) <= max(1, len(alive) // 4) else []


def _gain(stream: Rows, means: Rows, healthy: Sequence[int]) -> Deviation | None:
    """The common deviation of these layers, where it is more than a model's may be."""
    if not healthy:
        return None
    seen, expected = (sample.layers[:, healthy].sum(axis=1) for sample in (stream, means))
    test = of_mean("", seen, expected, BANDS["mean_visible"].must)
    return test if test.p < 0.01 else None


def _others(drifted: dict[str, Deviation], common: float) -> list[str]:
    """What is neither a layer's fault nor the gain's."""
    told = []
    if "depth" in drifted:
        effect = drifted["depth"].effect
        how = "deeper" if effect > 0 else "less deep"
        told.append(f"showers lie {abs(effect):.2g} layers {how}: material in front, another absorber or particle")
    if "hits" in drifted:
        effect = drifted["hits"].effect
        why = "noise, or a lower threshold" if effect > 0 else "silent cells, or a higher threshold"
        told.append(f"{_many(effect)} cells are hit: {why}")
    for name in ("width_x", "width_y"):
        if name in drifted:
            effect = drifted[name].effect
            told.append(f"showers are {abs(effect):.0%} {'wider' if effect > 0 else 'narrower'} in {name[-1]}")
    if "angle" in drifted:
        told.append(f"the angle is off by {drifted['angle'].effect:+.2g} degrees: alignment")
    if "resolution" in drifted:
        told.append(f"the width of S/E is {_many(drifted['resolution'].effect)}: noise, or cells that differ")
    named = {"depth", "hits", "width_x", "width_y", "angle", "resolution"}
    for name, test in drifted.items():
        if name not in named and name.startswith("visible"):
            told.append(f"S/E{name.removeprefix('visible').replace(' ', ' at ', 1)} reads {_percent(test.effect)}")
    return told or [f"{name} differs by {test.effect:+.3g} {test.unit}".rstrip() for name, test in drifted.items()]


def _percent(effect: float) -> str:
    return f"{100 * abs(effect):.1f} % {'high' if effect > 0 else 'low'}"


def _many(effect: float) -> str:
    return f"{100 * abs(effect):.0f} % {'more' if effect > 0 else 'less'}"
