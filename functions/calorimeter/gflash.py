"""Showers by the parametrisation of Grindhammer and Peters (GFLASH), the fast simulation that a learned one must beat.

Formulas and constants: G. Grindhammer and S. Peters, hep-ex/0001020, sections 2 to 4. Three numbers are calibrated to
Geant4 at 10 GeV in the geometry `siw25`: what a shower leaves in silicon against what a minimum-ionising particle would
(`E_OVER_MIP`), the sampling fluctuations (`SAMPLING`) and how much wider showers are with gaps (`LATERAL`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from functions.calorimeter.geometry import AXIS_DEPTH_MM, Geometry
from functions.calorimeter.showers import Cells, Energies, Floats, Showers

E_OVER_MIP = 0.61
LATERAL = 1.2
SAMPLING = 0.17
"""Sampling term sigma/E = c / sqrt(E / GeV) of layers as thick as `REFERENCE_LAYER` radiation lengths."""
REFERENCE_LAYER = 0.69
SCALE_ENERGY_MEV = 21.2
WIDEST_SIGMA = 0.5
"""The parametrised fluctuations diverge at low energies."""
PARTICLES = ("e-", "e+", "gamma")


@dataclass(frozen=True)
class Medium:
    """A sampling calorimeter as one effective material (hep-ex/0001020, section 3.1)."""

    geometry: Geometry

    @cached_property
    def thickness_mm(self) -> Floats:
        """Material in each layer, gaps left out."""
        return np.array([layer.absorber_mm + layer.sensor_mm for layer in self.geometry.layers])

    @cached_property
    def _weights(self) -> tuple[Floats, Floats]:
        absorber = np.array([layer.absorber.density * layer.absorber_mm for layer in self.geometry.layers])
        sensor = np.array([layer.sensor.density * layer.sensor_mm for layer in self.geometry.layers])
        return absorber, sensor

    def _effective(self, quantity: str) -> Floats:
        """A material's quantity in each layer, weighted by mass."""
        absorber, sensor = self._weights
        first = np.array([getattr(layer.absorber, quantity) for layer in self.geometry.layers])
        second = np.array([getattr(layer.sensor, quantity) for layer in self.geometry.layers])
        return np.asarray((absorber * first + sensor * second) / (absorber + sensor))

    @cached_property
    def z(self) -> Floats:
        """Effective atomic number of each layer."""
        return self._effective("z")

    @cached_property
    def layer_x0(self) -> Floats:
        """Radiation lengths in each layer."""
        absorber, sensor = self._weights
        lengths = zip(absorber, sensor, self.geometry.layers, strict=True)
        return np.array(
            [0.1 * (a / layer.absorber.radiation_length + s / layer.sensor.radiation_length) for a, s, layer in lengths]
        )

    @cached_property
    def radiation_length_mm(self) -> Floats:
        """Effective radiation length of each layer's material."""
        return np.asarray(self.thickness_mm / self.layer_x0)

    @cached_property
    def critical_energy_mev(self) -> Floats:
        """Effective critical energy of each layer's material."""
        absorber, sensor = self._weights
        rows = zip(absorber, sensor, self.geometry.layers, strict=True)
        loss = [
            a * one.absorber.critical_energy_mev / one.absorber.radiation_length
            + s * one.sensor.critical_energy_mev / one.sensor.radiation_length
            for a, s, one in rows
        ]
        return np.asarray(0.1 * np.array(loss) / self.layer_x0)

    @cached_property
    def moliere_radius_mm(self) -> Floats:
        """Effective Moliere radius of each layer, stretched by its gaps."""
        pitch = np.array([layer.pitch_mm for layer in self.geometry.layers])
        radius = SCALE_ENERGY_MEV * self.radiation_length_mm / self.critical_energy_mev
        return np.asarray(LATERAL * radius * pitch / self.thickness_mm)

    @cached_property
    def sampling_frequency(self) -> Floats:
        """F_S: radiation length over the thickness of a sampling layer."""
        return np.asarray(1 / self.layer_x0)

    @cached_property
    def e_hat(self) -> Floats:
        """The ratio e/mip that the parametrisation takes: 1 / (1 + 0.007 (Z_absorber - Z_sensor))."""
        difference = np.array([layer.absorber.z - layer.sensor.z for layer in self.geometry.layers])
        return np.asarray(1 / (1 + 0.007 * difference))

    @cached_property
    def visible(self) -> Floats:
        """Part of the energy deposited in a layer that its sensor sees."""
        absorber, sensor = self._weights
        rows = zip(absorber, sensor, self.geometry.layers, strict=True)
        seen = [
            s * layer.sensor.minimum_loss / (s * layer.sensor.minimum_loss + a * layer.absorber.minimum_loss)
            for a, s, layer in rows
        ]
        return E_OVER_MIP * np.array(seen)

    @cached_property
    def depth_x0(self) -> Floats:
        """Depth of each layer's middle, radiation lengths."""
        return np.asarray(np.cumsum(self.layer_x0) - self.layer_x0 / 2)


@dataclass(frozen=True)
class Longitudinal:
    """The longitudinal profile of one shower, a Gamma distribution in depth, and the mean one at its energy."""

    alpha: float
    maximum: float
    """T, the depth of the maximum in radiation lengths."""
    mean_alpha: float

    @property
    def beta(self) -> float:
        """Of the Gamma distribution, per radiation length."""
        return (self.alpha - 1) / self.maximum


def simulate(
    geometry: Geometry,
    particle: str,
    energy_gev: Floats,
    theta: Floats,
    seeds: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    *,
    chunk: int = 64,
) -> Iterator[Showers]:
    """Showers of the given primaries, `chunk` at a time; each has a generator of its own, seeded with its seed."""
    medium = Medium(geometry)
    for start in range(0, len(energy_gev), chunk):
        stop = min(start + chunk, len(energy_gev))
        made = [
            shower(medium, particle, float(energy_gev[i]), float(theta[i]), np.random.default_rng(int(seeds[i])))
            for i in range(start, stop)
        ]
        yield Showers(
            energy_gev[start:stop],
            theta[start:stop],
            np.concatenate([[0], np.cumsum([len(cell) for cell, _ in made])]).astype(np.int64),
            np.concatenate([cell for cell, _ in made]),
            np.concatenate([edep for _, edep in made]),
        )


def shower(
    medium: Medium, particle: str, energy_gev: float, theta: float, rng: np.random.Generator
) -> tuple[Cells, Energies]:
    """One shower: the cells that were hit, ascending, and the energy in each, MeV."""
    geometry = medium.geometry
    begin = float(rng.exponential(9 / 7)) if particle == "gamma" else 0.0
    profile = _longitudinal(medium, energy_gev, rng)
    slant = 1 / math.sin(theta)
    depth = medium.depth_x0 * slant - begin
    width = medium.layer_x0 * slant
    visible = 1e3 * energy_gev * _gamma_pdf(depth, profile.alpha, profile.beta) * width * medium.visible
    sampling = SAMPLING * np.sqrt(medium.layer_x0 / REFERENCE_LAYER)
    variance = 1e3 * sampling**2 * medium.visible * visible
    layers = np.flatnonzero(visible > 0)
    seen = np.zeros_like(visible)
    seen[layers] = rng.gamma(visible[layers] ** 2 / variance[layers], variance[layers] / visible[layers])
    spots = rng.poisson(_spots(medium, energy_gev, profile, depth, width))
    spots = np.where(seen > 0, np.maximum(spots, 1), 0)
    layer = np.repeat(np.arange(len(spots)), spots)
    x, y = _spread(medium, energy_gev, profile, depth, layer, rng)
    middles = np.array(geometry.middles_mm)
    y = y * slant + (middles[layer] - AXIS_DEPTH_MM) / math.tan(theta)
    column = np.floor(x / geometry.cell_mm + geometry.cells / 2).astype(np.int64)
    row = np.floor(y / geometry.cell_mm + geometry.cells / 2).astype(np.int64)
    inside = (column >= 0) & (column < geometry.cells) & (row >= 0) & (row < geometry.cells)
    each = (seen / np.maximum(spots, 1))[layer]
    cell = (column * geometry.cells + row) * len(spots) + layer
    hit, place = np.unique(cell[inside], return_inverse=True)
    return hit.astype(np.uint32), np.bincount(place, each[inside], len(hit)).astype(np.float32)


def _longitudinal(medium: Medium, energy_gev: float, rng: np.random.Generator) -> Longitudinal:
    """Draw the profile of a shower in a sampling calorimeter (section 3.2)."""
    log_y = math.log(1e3 * energy_gev / float(np.average(medium.critical_energy_mev[:10])))
    z, frequency, e_hat = (float(np.average(a[:10])) for a in (medium.z, medium.sampling_frequency, medium.e_hat))
    maximum = max(0.5, log_y - 0.812 - 0.55 / frequency - 0.69 * (1 - e_hat))
    alpha = max(1.1, 0.81 + (0.458 + 2.26 / z) * log_y - 0.476 / frequency)
    spread_t = _sigma(-2.5 + 1.25 * log_y)
    spread_a = _sigma(-0.82 + 0.79 * log_y)
    rho = 0.784 - 0.023 * log_y
    together, apart = math.sqrt((1 + rho) / 2), math.sqrt((1 - rho) / 2)
    one, two = rng.standard_normal(2)
    drawn = alpha * math.exp(spread_a * (together * one - apart * two))
    return Longitudinal(
        max(1.05, drawn), maximum * math.exp(spread_t * (together * one + apart * two)), mean_alpha=alpha
    )


def _spots(medium: Medium, energy_gev: float, profile: Longitudinal, depth: Floats, width: Floats) -> Floats:
    """The mean number of energy spots in each layer (section 4.3)."""
    total = 10.3 / SAMPLING * energy_gev**0.959
    alpha = profile.alpha * (0.844 + 0.0026 * medium.z)
    maximum = profile.maximum * (0.813 + 0.0019 * medium.z)
    beta = np.maximum(alpha - 1, 0.05) / maximum
    return np.asarray(total * _gamma_pdf(depth, alpha, beta) * width)


def _spread(
    medium: Medium,
    energy_gev: float,
    profile: Longitudinal,
    depth: Floats,
    layer: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Where spots are, in mm from the axis: a core and a tail, both changing with depth (section 4.2)."""
    tau = np.maximum(depth, 0) / (profile.maximum * profile.mean_alpha / max(profile.mean_alpha - 1, 0.1))
    log_e, z, missing = math.log(energy_gev), medium.z, 1 - medium.e_hat
    frequency = medium.sampling_frequency
    core = 0.0251 + 0.00319 * log_e + (0.1162 - 0.000381 * z) * tau
    core = core - 0.0203 * missing + 0.0397 * np.exp(-tau) / frequency
    tail = (0.659 - 0.00309 * z) * (np.exp(-2.59 * (tau - 0.645)) + np.exp((0.3585 + 0.0412 * log_e) * (tau - 0.645)))
    tail = tail - 0.14 * missing - 0.495 * np.exp(-tau) / frequency
    power = (0.401 + 0.00187 * z - tau) / (1.313 - 0.0686 * log_e)
    part = (2.632 - 0.00094 * z) * np.exp(power - np.exp(power))
    part = np.clip(part + missing * (0.348 - 0.642 * np.exp(-((tau - 1) ** 2)) / frequency), 0, 1)
    core = np.maximum(core, 1e-3)
    tail = np.maximum(tail, core)
    scale = np.where(rng.random(len(layer)) < part[layer], core[layer], tail[layer])
    u = rng.random(len(layer))
    radius = medium.moliere_radius_mm[layer] * scale * np.sqrt(u / (1 - u))
    phi = 2 * math.pi * rng.random(len(layer))
    return radius * np.cos(phi), radius * np.sin(phi)


def _sigma(inverse: float) -> float:
    return min(WIDEST_SIGMA, 1 / inverse) if inverse > 0 else WIDEST_SIGMA


def _gamma_pdf(t: Floats, alpha: Floats | float, beta: Floats | float) -> Floats:
    """The Gamma distribution (beta t)^(alpha - 1) beta e^(-beta t) / Gamma(alpha); 0 before the shower begins."""
    lgamma = np.vectorize(math.lgamma)(alpha)
    bt = np.maximum(beta * t, 1e-12)
    return np.asarray(np.where(t > 0, beta * np.exp((alpha - 1) * np.log(bt) - bt - lgamma), 0.0))
