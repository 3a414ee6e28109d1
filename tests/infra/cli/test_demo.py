"""The demo compares labels with the truth, follows a chain, and works twice."""

from pathlib import Path
from typing import Any

import pytest

from infra.cli import embedded
from infra.cli.demo.report import confusion, pulses
from infra.cli.errors import CliError
from tests.infra.cli.conftest import Dioscar


def frames(*labels: str, first: int = 0) -> dict[str, Any]:
    return {"frames": [{"index": first + index, "label": label} for index, label in enumerate(labels)]}


def test_a_confusion_matrix_counts_frames_by_their_index() -> None:
    matrix = confusion(frames("pulse", "none", first=1), frames("none", "pulse", "nbrfi"))
    assert matrix.labels == ["none", "pulse", "nbrfi"]
    assert matrix.rows() == [["pulse", "", 1, ""], ["nbrfi", 1, "", ""]]
    assert (matrix.frames, matrix.exact) == (2, 0.5)


def test_perfect_labels_are_exact_and_wrong_ones_are_not() -> None:
    truth = frames("none", "pulse", "pulse+nbrfi", "other")
    assert confusion(truth, truth).exact == 1
    assert confusion(frames("other", "none", "none", "none"), truth).exact == 0


def test_a_pulse_counts_as_found_in_whatever_company() -> None:
    truth = frames("pulse", "pulse+nbrfi", "pulse", "none")
    assert confusion(frames("pulse+bbrfi", "pulse", "nbrfi", "pulse"), truth).pulses() == (2, 3)


def test_a_truth_of_another_observation_is_refused() -> None:
    with pytest.raises(CliError, match="do not belong together"):
        confusion(frames("none", "none"), frames("none"))


def pulse(time_s: float, snr: float = 20.0) -> dict[str, float]:
    return {"time_s": time_s, "snr": snr}


def test_a_true_pulse_is_found_by_one_event_near_its_time() -> None:
    truth = {"pulses": [pulse(1.0), pulse(2.0, snr=9), pulse(3.0)]}
    result = pulses([pulse(1.01), pulse(2.9), pulse(3.001), pulse(3.002)], truth)
    assert [found["time_s"] for found in result.found] == [1.0, 3.0]
    assert [missed["time_s"] for missed in result.missed] == [2.0]
    assert [false["time_s"] for false in result.false] == [2.9, 3.002]


def test_an_event_is_counted_once() -> None:
    result = pulses([pulse(1.0)], {"pulses": [pulse(1.001, snr=8), pulse(0.999, snr=30)]})
    assert ([found["snr"] for found in result.found], len(result.missed), result.false) == ([30], 1, [])


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory, dioscar: Dioscar) -> Any:
    folder = tmp_path_factory.mktemp("demo") / "data"
    yield folder
    assert dioscar("down", "--data", folder).status == 0


def test_the_demo_shows_an_observation_labelled_and_does_so_again(dioscar: Dioscar, data: Path, tmp_path: Path) -> None:
    first = dioscar("demo", "--data", data, "--to", tmp_path / "out")
    assert first.status == 0, first.err
    assert "frames, dropped" in first.out
    assert "Frames by their true label (rows) and the label given (columns):" in first.out
    assert f"{tmp_path}/out/demo.json.fil.h5.png" in first.out
    assert (tmp_path / "out/demo.json.fil.h5.labels.json").is_file()
    assert embedded.find(data) is not None, "the cluster is left running, to look further"
    before = (tmp_path / "out/demo.json.fil.h5.labels.json").read_bytes()
    second = dioscar("demo", "--data", data, "--to", tmp_path / "out", "--json")
    assert second.status == 0, second.err
    result = second.json
    assert result["frames"]["in"] == result["frames"]["kept"] + result["frames"]["dropped"] > 0
    assert sum(cell or 0 for row in result["truth"]["rows"] for cell in row[1:]) == result["frames"]["in"]
    assert result["truth"]["exact"] > 0.8
    assert result["truth"]["pulse_frames"]["found"] > 0
    assert result["truth"]["pulses"]["found"]
    assert result["bytes"]["kept"] < result["bytes"]["file"]
    assert (tmp_path / "out/demo.json.fil.h5.labels.json").read_bytes() == before, "same request, same answer"


def test_a_file_that_is_no_observation_is_bad_input_in_the_functions_words(
    dioscar: Dioscar, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "größe 1.fil"
    path.write_text("not a filterbank")
    said = dioscar("demo", path, "--data", data, "--to", tmp_path / "out")
    assert said.status == 65
    assert "größe 1.fil" in said.err.splitlines()[-1]
    assert "no filterbank" in said.err.splitlines()[-1]
