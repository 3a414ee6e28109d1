"""A generator of one detector learns another, drawn by lot, better than one that begins with nothing."""

import secrets
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
from tests.functions.calorimeter.adapting import Task, area, drawn_detector, learned, rescaled
from tests.functions.calorimeter.trainings import as_input, prepared

pytestmark = pytest.mark.slow

WINDOW = {"cells": 25, "cell_mm": 8.0}
HOME = {
    "name": "home",
    **WINDOW,
    "layers": [{"count": 20, "absorber": "W", "absorber_mm": 3.5, "sensor": "Si", "sensor_mm": 0.5, "gap_mm": 2.5}],
}
SHOTS = {"engine": "geant4", "energy_gev": [1, 3], "theta_deg": [75, 105]}
"""Low energies, so that Geant4's showers cost little."""
SMALL = {"batch": 64, "width": 96, "blocks": 2, "cells_every": 3}


def test_adapted_is_better_than_from_scratch_and_than_unadapted(tmp_path: Path) -> None:
    seed = secrets.randbelow(2**16)
    detector = drawn_detector(seed, **WINDOW)
    told = f"detector drawn with seed {seed}: {detector['layers']}"
    home = Task(
        prepared(tmp_path, "home", detector=HOME, showers=800, seed=1, **SHOTS), tmp_path, {**SMALL, "steps": 800}, 1
    )
    base = learned(home, tmp_path / "base", None)
    new = prepared(tmp_path, "new", detector=detector, showers=250, seed=2, **SHOTS)
    judge = prepared(tmp_path, "judge", detector=detector, showers=750, seed=3, **SHOTS)
    task = Task(as_input(new.path), judge.path, {**SMALL, "steps": 150}, seed)
    unadapted = area(base, task.judge, seed)
    begun = area(rescaled(task, tmp_path, base), task.judge, seed)
    adapted = area(learned(task, tmp_path / "adapted", base), task.judge, seed)
    scratch = area(learned(task, tmp_path / "scratch", None), task.judge, seed)
    print(f"{told}; AUC unadapted {unadapted}, with new scales {begun}, adapted {adapted}, from scratch {scratch}")
    assert adapted.value < scratch.value, told
    assert adapted.value < unadapted.value, told
    assert adapted.value < begun.value + 2 * begun.error, told
