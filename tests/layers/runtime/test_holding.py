"""Of several runs of one request at once, one has the folder; and no folder is another user's."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from layers.runtime import checkpoints, holding
from layers.runtime.checkpoints import FILES, Kept, forget
from layers.runtime.contract import Checkpointed, InputError
from layers.runtime.holding import default_root, held, make_root, run_folder, run_key_of

KEY = "a" * 64


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "HOLDER_S", 0.0)
    monkeypatch.setattr(holding, "POLL_S", 0.01)


def test_a_second_run_takes_nothing_from_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = Kept(tmp_path / KEY), Kept(tmp_path / KEY)
    (first.files / "state").write_text("1")
    assert second.files != first.files and not list(second.files.iterdir())
    assert "another run of this request is at work" in capsys.readouterr().out
    second.remove()
    forget(tmp_path / KEY, None)
    second.close()
    assert (first.files / "state").read_text() == "1"
    first.close()
    third = Kept(tmp_path / KEY)
    assert (third.files / "state").read_text() == "1", "the next attempt has it"
    third.remove()
    third.close()
    assert not list(tmp_path.iterdir())


def test_it_waits_for_one_that_is_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "HOLDER_S", 60.0)
    first, second = Kept(tmp_path / KEY), Kept(tmp_path / KEY)
    (first.files / "state").write_text("1")
    monkeypatch.setattr(holding.time, "sleep", lambda _: first.close())
    assert (second.files / "state").read_text() == "1"
    second.close()


def test_a_run_of_several_ranks_ends_to_be_run_again(tmp_path: Path) -> None:
    first, second = Kept(tmp_path / KEY), Kept(tmp_path / KEY, ranks=2)
    first.open()
    with pytest.raises(Checkpointed, match="another run of this request"):
        second.open()
    for kept in (first, second):
        kept.close()


def test_the_folder_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    script = "import sys, pathlib; from layers.runtime.checkpoints import Kept; "
    script += (
        "Kept(pathlib.Path(sys.argv[1])).files.joinpath('state').write_text('1'); print('there', flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / KEY)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        assert held(tmp_path / KEY, 0.0) is None
        process.kill()
    next_one = Kept(tmp_path / KEY)
    assert (next_one.files / "state").read_text() == "1"
    next_one.close()


def test_a_lock_that_went_with_its_folder_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = held(tmp_path / KEY, 0.0)
    assert first is not None
    real = fcntl.flock

    def late(lock: int, what: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        first.release()  # between another's opening of the lock and its locking
        real(lock, what)

    monkeypatch.setattr(fcntl, "flock", late)
    second = held(tmp_path / KEY, 0.0)
    assert second is not None and held(tmp_path / KEY, 0.0) is None
    second.release()


def test_without_locks_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    kept = Kept(tmp_path / KEY)
    assert kept.files == tmp_path / KEY / FILES
    kept.close()
    assert "has no locks (Function not implemented)" in capsys.readouterr().out


def test_equal_requests_of_two_buckets_have_two_folders(tmp_path: Path) -> None:
    folders = {run_folder(tmp_path, KEY, bucket) for bucket in ("", "alice", "bob", "../..")}
    assert len(folders) == 4
    assert all(folder.parent == tmp_path and run_key_of(folder) == KEY for folder in folders)


def test_the_default_folder_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding.tempfile, "gettempdir", lambda: str(tmp_path))
    root = default_root()
    assert str(os.geteuid()) in root.name
    make_root(root)
    make_root(root)
    assert root.stat().st_mode & 0o777 == 0o700
    root.chmod(0o770)
    with pytest.raises(InputError, match="is not a folder of this user alone"):
        make_root(root)
    root.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is not a folder of this user alone"):
        Kept(root / KEY).open()
