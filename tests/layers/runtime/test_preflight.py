"""A function's variables are looked at before it is deployed, and only what is surely wrong is said."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from layers.runtime.preflight import complaints

TWIN = {
    "fit": "from dataclasses import dataclass\n"
    "MODELS = ('small-model',)\n"
    "print('imported')\n"
    "@dataclass(frozen=True)\n"
    "class Settings:\n"
    "    dm_max: float\n"
    "    method: str = 'fast'\n"
    "def run(source, destination, settings): ...\n",
    "needy": "import no_such_package_at_all\n",
    "broken": "def run(:\n",
}


@pytest.fixture
def twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "functions" / "preflown"
    folder.mkdir(parents=True)
    for name, text in TWIN.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def of(name: str, **variables: str) -> list[str]:
    return complaints({"DIOSCAR_FUNCTION": f"preflown.{name}", **variables})


def test_what_a_function_reads_and_what_libraries_read_is_no_doubt(twin: Path):
    assert of("fit", DM_MAX="3", METHOD="slow", FORWARD="* -> a/in", DIOSCAR_MODEL_SMALL_MODEL="x.onnx") == []
    assert of("fit", DM_MAX="3", OMP_NUM_THREADS="1", TZ="UTC", https_proxy="x", PYTHONUNBUFFERED="1") == []


@pytest.mark.parametrize(
    "name, mend",
    [
        ("DM_MAXX", "did you mean DM_MAX?"),
        ("dm_max", "did you mean DM_MAX?"),
        ("FORWRD", "did you mean FORWARD?"),
        ("DIOSCAR_MODEL_SMAL_MODEL", "did you mean DIOSCAR_MODEL_SMALL_MODEL?"),
        ("COLOUR", "its settings are DM_MAX, METHOD"),
    ],
)
def test_a_variable_that_nobody_reads_is_named_with_the_nearest(twin: Path, name: str, mend: str):
    assert of("fit", DM_MAX="3", **{name: "1"}) == [
        f"environment variable {name}: preflown.fit has no such setting; {mend}"
    ]


def test_a_value_that_the_function_would_refuse_is_said_in_its_words(twin: Path):
    assert of("fit", DM_MAX="much") == ['environment variable DM_MAX: "much" is no number; write number']
    assert of("fit") == ["environment variable DM_MAX is not set; set it in the FDL's environment.variables"]


def test_a_function_that_is_not_here_or_is_broken_is_said_and_one_whose_packages_are_missing_is_not(twin: Path):
    (missing,) = of("nosuch")
    assert missing.startswith('DIOSCAR_FUNCTION: there is no function "preflown.nosuch"; add functions/preflown/')
    (broken,) = of("broken")
    assert broken.startswith("DIOSCAR_FUNCTION: its module cannot be imported (SyntaxError: ")
    assert of("needy", ANYTHING="1") == []


def test_the_process_answers_in_json_whatever_a_module_prints(twin: Path):
    asked = {"a": {"DIOSCAR_FUNCTION": "preflown.fit", "DM_MAX": "1"}, "b": {"DIOSCAR_FUNCTION": "preflown"}}
    answered = subprocess.run(
        [sys.executable, "-P", "-m", "layers.runtime.preflight"],
        input=json.dumps(asked),
        env={"PYTHONPATH": str(twin)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(answered.stdout)
    assert found["a"] == []
    assert "is no function name" in found["b"][0]
    assert answered.stderr == "imported\n"
