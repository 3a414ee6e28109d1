"""Functions by name: found, versioned, and refused in a sentence."""

from pathlib import Path

import pytest

from layers.runtime import InputError
from layers.runtime.function import Function, ModelError, NoSettings, Sources, load, resolve_models
from layers.runtime.testing import call


@pytest.fixture
def twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty twin `sketch` of the user's own, merged into `functions`."""
    folder = tmp_path / "functions" / "sketch"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path))
    load.cache_clear()
    return folder


def write(twin: Path, name: str, text: str) -> None:
    (twin / f"{name}.py").write_text(text)


@pytest.mark.parametrize("name", ["", "pulsar", "pulsar.Classify", "../etc", "pulsar.classify; rm -rf /", "a..b"])
def test_a_malformed_name_is_refused(name: str):
    with pytest.raises(InputError, match="is no function name"):
        load(name)


def test_an_unknown_function_is_named():
    with pytest.raises(InputError, match=r'there is no function "pulsar\.nowhere"; add functions/pulsar/nowhere\.py'):
        load("pulsar.nowhere")


def test_a_module_without_run_is_no_function(twin: Path):
    write(twin, "empty1", "")
    with pytest.raises(InputError, match=r"functions/sketch/empty1\.py: has no run"):
        load("sketch.empty1")


def test_settings_and_job_may_be_left_out(twin: Path, tmp_path: Path):
    write(twin, "plain", "def run(source, destination, settings):\n    (destination / 'x').write_text('1')\n")
    found = load("sketch.plain")
    assert found.settings is NoSettings
    assert not found.takes_job
    (tmp_path / "a").write_text("")
    assert call("sketch.plain", tmp_path / "a", tmp_path / "out").code == 0


def test_changed_source_is_another_version(twin: Path):
    write(twin, "changing", "def run(source, destination, settings): ...\n")
    before = load("sketch.changing").version
    write(twin, "helper", "LIMIT = 1\n")
    load.cache_clear()
    assert load("sketch.changing").version != before


def test_changed_source_of_a_sub_package_is_another_version(twin: Path):
    write(twin, "nested", "def run(source, destination, settings): ...\n")
    (twin / "parts").mkdir()
    write(twin / "parts", "one", "LIMIT = 1\n")
    before = load("sketch.nested").version
    write(twin / "parts", "one", "LIMIT = 2\n")
    load.cache_clear()
    assert load("sketch.nested").version != before


def test_sources_tell_of_every_change_in_any_folder(twin: Path):
    write(twin, "top", "")
    (twin / "parts").mkdir()
    write(twin / "parts", "one", "")
    sources = Sources(twin)
    (twin / "parts" / "note.txt").write_text("no source")
    assert not sources.changed()
    write(twin / "parts", "one", "LIMIT = 1\n")
    assert sources.changed()
    sources = Sources(twin)
    write(twin / "parts", "two", "")
    assert sources.changed()
    sources = Sources(twin)
    (twin / "parts" / "two.py").unlink()
    assert sources.changed()


def test_a_library_that_is_missing_is_not_a_missing_function(twin: Path, tmp_path: Path):
    write(twin, "needy", "import no_such_library\ndef run(source, destination, settings): ...\n")
    (tmp_path / "a").write_text("")
    outcome = call("sketch.needy", tmp_path / "a", tmp_path / "out")
    assert (outcome.code, outcome.error) == (1, "ModuleNotFoundError")
    assert "no_such_library" in outcome.message


def test_a_model_may_be_pinned_and_must_be_there(tmp_path: Path):
    function = Function("a.b", lambda: None, False, NoSettings, ("tiny",), None, tmp_path, "1")
    with pytest.raises(ModelError, match='model "tiny" is not at'):
        resolve_models(function, {})
    pinned = tmp_path / "v2.onnx"
    pinned.write_text("2")
    assert resolve_models(function, {"DIOSCAR_MODEL_TINY": str(pinned)}) == {"tiny": pinned}


def test_a_reply_that_matches_no_file_is_a_defect_of_the_function(twin: Path, tmp_path: Path):
    write(twin, "mute", "REPLY = '*.json'\ndef run(source, destination, settings): ...\n")
    (tmp_path / "a").write_text("")
    outcome = call("sketch.mute", tmp_path / "a", tmp_path / "out", reply=True)
    assert outcome.code == 1
    assert "functions/sketch/mute.py" in outcome.message


def test_used_up_memory_is_said(twin: Path, tmp_path: Path):
    write(twin, "greedy", "def run(source, destination, settings): raise MemoryError\n")
    (tmp_path / "a").write_text("")
    outcome = call("sketch.greedy", tmp_path / "a", tmp_path / "out")
    assert outcome.message == "the memory of this job is used up; give the service more memory"
