"""A small generator in the agreed format, of any geometry: a mean shower that fluctuates. Not learned, but quick.

Run as a program it writes one: `python -m tests.functions.calorimeter.tiny_model FILE [GEOMETRY]`.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from functions.calorimeter.generator import FORMAT
from functions.calorimeter.geometry import AXIS_DEPTH_MM, Geometry, load_geometry
from layers.learning.onnx import About, Tensor, export

RANGE = {"energy_gev": [10.0, 100.0], "theta_deg": [60.0, 120.0]}


class Tiny(torch.nn.Module):  # type: ignore[misc]
    """2 % of the energy, with a fluctuation of 6 %, along the axis, in a Gaussian of one cell that grows with depth."""

    def __init__(self, geometry: Geometry, threshold_mev: float, gain: float) -> None:
        super().__init__()
        depth = torch.tensor(geometry.middles_mm, dtype=torch.float32)
        self.off_axis = depth - AXIS_DEPTH_MM
        self.t = depth / 7.0
        self.places = (torch.arange(geometry.cells) + 0.5 - geometry.cells / 2) * geometry.cell_mm
        self.width = geometry.cell_mm * (1 + depth / 100)
        self.threshold, self.gain = threshold_mev, gain

    def forward(
        self,
        energy_gev: torch.Tensor,
        theta: torch.Tensor,
        particle: torch.Tensor,
        normal_profile: torch.Tensor,
        uniform_place: torch.Tensor,
    ) -> torch.Tensor:
        """Cells, (n, x, y, layer), MeV."""
        visible = self.gain * 20 * energy_gev * (1 + 0.06 * normal_profile[:, 0])
        power = 2 + torch.log(energy_gev) / 2 + 0.3 * particle
        profile = torch.exp(power[:, None] * torch.log(self.t) - self.t / 2 + 0.2 * normal_profile[:, 1:])
        layers = visible[:, None] * profile / profile.sum(dim=1, keepdim=True)
        rows = self.off_axis / torch.tan(theta)[:, None]
        x = torch.exp(-((self.places[:, None] / self.width) ** 2) / 2)
        y = torch.exp(-(((self.places[None, :, None] - rows[:, None, :]) / self.width) ** 2) / 2)
        share = x[None, :, None, :] * y[:, None, :, :]
        share = -torch.log(uniform_place) * share / (share.sum(dim=(1, 2), keepdim=True) + 1e-9)
        cells = layers[:, None, None, :] * share
        return torch.where(cells >= self.threshold, cells, torch.zeros_like(cells))


def tiny_model(
    geometry: Geometry | None = None,
    *,
    particles: Sequence[str] = ("e-", "gamma"),
    threshold_mev: float = 0.1,
    training_range: dict[str, list[float]] | None = None,
    gain: float = 1.0,
    family: str = "two-stage",
) -> bytes:
    """The ONNX file; `gain` scales all energies, for tests that need a wrong or another model."""
    there = geometry or load_geometry("siw25")
    torch.set_num_threads(1)
    x, y, layers = there.shape
    about = About(
        format=FORMAT,
        inputs=(
            Tensor("energy_gev", (None,), "GeV", "energy of the primary"),
            Tensor("theta", (None,), "rad", "its polar angle"),
            Tensor("particle", (None,), "", "index into particles"),
            Tensor("normal_profile", (None, 1 + layers), "", "standard normal"),
            Tensor("uniform_place", (None, x, y, layers), "", "uniform in (0, 1)"),
        ),
        outputs=(Tensor("ecal", (None, x, y, layers), "MeV", "energy in the sensor of each cell"),),
        training_range=training_range or RANGE,
        producer="tests",
        more={
            "family": family,
            "geometry": json.dumps(there.as_json()),
            "particles": json.dumps(list(particles)),
            "threshold_mev": json.dumps(threshold_mev),
        },
    )
    return export(Tiny(there, float(np.float32(threshold_mev)), gain), about)


def write_tiny(path: Path, geometry: Geometry | None = None) -> Path:
    """Write the model to a file."""
    path.write_bytes(tiny_model(geometry))
    return path


if __name__ == "__main__":
    write_tiny(Path(sys.argv[1]), load_geometry(sys.argv[2]) if len(sys.argv) > 2 else None)
