"""A generator without error at one energy and angle: it draws from a bank of showers that were simulated there.

What it generates has the distribution of the bank's showers, so new showers of the same simulation are an unchanged
stream for it, and changed ones a drift that is known. The file is as small as the detector: a toy of ten layers.
"""

import json
import math
from pathlib import Path

import numpy as np

from functions.calorimeter import gflash
from functions.calorimeter.geometry import Geometry, load_geometry
from functions.calorimeter.showers import Showers, join
from layers.learning.onnx import About, Tensor, described

DETECTOR = {
    "name": "toy",
    "cells": 9,
    "cell_mm": 8,
    "layers": [{"count": 10, "absorber": "W", "absorber_mm": 5, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 2}],
}
TOY: Geometry = load_geometry(DETECTOR)
ENERGY_GEV = 8.0
THRESHOLD_MEV = 0.1
REQUEST = {
    "detector": DETECTOR,
    "engine": "gflash",
    "energy_gev": [ENERGY_GEV],
    "theta_deg": [90.0],
}
"""What `calorimeter.simulate` makes more of the same from, with `showers` and `seed`."""


def showers(count: int, seed: int) -> Showers:
    """Showers of the bank's kind."""
    seeds = np.random.default_rng(seed).integers(1, 2**31, count)
    made = gflash.simulate(TOY, "e-", np.full(count, ENERGY_GEV), np.full(count, math.pi / 2), seeds)
    return join(list(made))


def write(path: Path, *, bank: int = 3000, seed: int = 99, family: str = "two-stage") -> Path:
    """Write the model, with `bank` showers in it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    images = showers(bank, seed).dense(TOY.shape)
    images[images < THRESHOLD_MEV] = 0

    def value(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["uniform_place", "bank_size"], ["scaled"]),
            helper.make_node("Cast", ["scaled"], ["place"], to=TensorProto.INT64),
            helper.make_node("Squeeze", ["place", "axis"], ["row"]),
            helper.make_node("Gather", ["bank", "row"], ["ecal"]),
        ],
        "bank",
        [value(name, ["n"]) for name in ("energy_gev", "theta", "particle")] + [value("uniform_place", ["n", 1])],
        [value("ecal", ["n", *TOY.shape])],
        [
            numpy_helper.from_array(images, "bank"),
            numpy_helper.from_array(np.float32(bank - 1e-3), "bank_size"),
            numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    about = About(
        "dioscar-calorimeter-generator-1",
        (
            Tensor("energy_gev", (None,), "GeV"),
            Tensor("theta", (None,), "rad"),
            Tensor("particle", (None,)),
            Tensor("uniform_place", (None, 1)),
        ),
        (Tensor("ecal", (None, *TOY.shape), "MeV"),),
        {"energy_gev": [ENERGY_GEV, ENERGY_GEV], "theta_deg": [90.0, 90.0]},
        {},
        "tests",
        {
            "family": family,
            "geometry": json.dumps(TOY.as_json()),
            "particles": json.dumps(["e-"]),
            "threshold_mev": str(THRESHOLD_MEV),
        },
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(described(model.SerializeToString(), about))
    return path
