"""The generator that serves learns another detector, drawn by lot, better than one that begins with nothing."""

import os
import secrets
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed: ./dioscar install train")
from tests.functions.calorimeter.adapting import SHIPPED, Task, contained_deg, drawn_detector, judged, learned, sizes
from tests.functions.calorimeter.trainings import prepared

pytestmark = pytest.mark.slow


def test_adapted_is_better_than_from_scratch_and_than_unadapted(tmp_path: Path) -> None:
    seed = int(os.environ.get("DETECTOR_SEED", secrets.randbelow(2**16)))  # the one that a failure tells
    detector = drawn_detector(seed)
    shots = {"engine": "geant4", "detector": detector, "energy_gev": [10, 12], "theta_deg": contained_deg(detector)}
    new = prepared(tmp_path, "new", showers=200, seed=2, **shots)
    judge = prepared(tmp_path, "judge", showers=450, seed=3, **shots)
    task = Task(new, judge.path, {**sizes(SHIPPED), "steps": 60, "batch": 64, "cells_every": 2}, seed, evaluations=3)
    unadapted = judged(SHIPPED, task.judge, seed)
    adapted = judged(learned(task, tmp_path / "adapted", SHIPPED), task.judge, seed)
    scratch = judged(learned(task, tmp_path / "scratch", None), task.judge, seed)
    told = f"seed {seed}, {detector['layers']}: unadapted {unadapted}, adapted {adapted}, from scratch {scratch}"
    print(told)
    assert adapted.score < scratch.score, told
    assert adapted.score < unadapted.score and adapted.auc.value < unadapted.auc.value, told
