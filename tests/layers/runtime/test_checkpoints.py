"""A copy of a checkpoint in object storage: whole or the one before, whatever breaks off in between."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from layers.objects.errors import AccessRefused, StoreUnavailable
from layers.runtime import adapter, checkpoints
from layers.runtime.checkpoints import FILES, MANIFEST, Copy, Kept
from layers.runtime.contract import InputError
from layers.runtime.inputs import Select
from layers.runtime.storage import config_of
from layers.runtime.testing import FolderStore, StoredFile

BUCKET, KEY = "train", "0" * 64


class Breaking(FolderStore):
    """A store that answers so many uploads, and no more."""

    def __init__(self, folder: Path, puts: int) -> None:
        super().__init__(folder)
        object.__setattr__(self, "left", [None] * puts)

    left: list[None]

    def put(self, bucket: str, key: str, source: Path) -> None:
        if not self.left:
            raise StoreUnavailable(f"{bucket}/{key}: no answer")
        self.left.pop()
        super().put(bucket, key, source)


def write(folder: Path, **files: str) -> Path:
    (folder / FILES).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / FILES / name).write_text(text)
    return folder


def restored(store: FolderStore, folder: Path) -> dict[str, str]:
    folder.mkdir()
    Copy(store, BUCKET, KEY).restore(folder)
    return {path.name: path.read_text() for path in sorted((folder / FILES).glob("*"))}


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    folder = write(tmp_path / "a", one="1", two="2")
    (folder / "inputs").mkdir()
    (folder / "inputs" / "large").write_text("an input is no checkpoint")
    Copy(store, BUCKET, KEY).keep(folder)
    assert restored(store, tmp_path / "b") == {"one": "1", "two": "2"}
    assert not (tmp_path / "b" / "inputs").exists()


@pytest.mark.parametrize("puts", [0, 1, 2])
def test_an_upload_that_breaks_off_leaves_the_one_before(tmp_path: Path, puts: int) -> None:
    Copy(FolderStore(tmp_path / "store"), BUCKET, KEY).keep(write(tmp_path / "a", one="old", two="old"))
    with pytest.raises(StoreUnavailable):
        Copy(Breaking(tmp_path / "store", puts), BUCKET, KEY).keep(write(tmp_path / "b", one="new", two="new"))
    store = FolderStore(tmp_path / "store")
    assert restored(store, tmp_path / "c") == {"one": "old", "two": "old"}
    Copy(store, BUCKET, KEY).remove()
    assert not list(store.list(BUCKET)), "the remains of broken uploads go, too"


def test_a_file_that_is_as_it_was_is_not_stored_again(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    folder = write(tmp_path / "a", one="1", two="2")
    copy = Copy(store, BUCKET, KEY)
    copy.keep(folder)
    before = {found.key for found in store.list(BUCKET)}
    copy.keep(write(folder, two="3"))
    after = {found.key for found in store.list(BUCKET)}
    assert len(after) == len(before) == 3
    assert len(after & before) == 2, "the file that is as it was, and the manifest's name"


def test_two_attempts_at_once_take_nothing_from_each_other(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    folder = write(tmp_path / "a", one="1")
    zombie, living = Copy(store, BUCKET, KEY), Copy(store, BUCKET, KEY)
    zombie.keep(folder)
    living.keep(folder)
    zombie.keep(write(tmp_path / "b", one="2"))
    living.keep(write(folder, one="3"))
    assert restored(store, tmp_path / "c") == {"one": "3"}


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "files/../../x", "elsewhere/x"])
def test_a_manifest_leads_nowhere_else(tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = FolderStore(tmp_path / "store")
    Copy(store, BUCKET, KEY).keep(write(tmp_path / "a", one="1"))
    manifest = tmp_path / "store" / BUCKET / "checkpoints" / KEY / MANIFEST
    entries = json.loads(manifest.read_text())
    entries["files"][0]["path"] = path
    manifest.write_text(json.dumps(entries))
    assert restored(store, tmp_path / "b") == {}
    assert "is no path of a checkpoint" in capsys.readouterr().out


def test_a_store_in_trouble_costs_one_copy_and_not_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = Kept(tmp_path / "none", lambda: Copy(Breaking(tmp_path / "store", 0), BUCKET, KEY))
    (kept.files / "state").write_text("1")
    kept.keep()
    assert "the checkpoint is not kept: " in capsys.readouterr().out
    with pytest.raises(StoreUnavailable):
        kept.keep_now()
    folder = kept.open()
    kept.close()
    assert not folder.exists() and not (tmp_path / "none").exists()


def test_a_bucket_that_may_not_be_read_is_done_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Closed(FolderStore):
        def get(self, *_: Any) -> None:
            raise AccessRefused("train/x: 403")

    kept = Kept(tmp_path / "none", lambda: Copy(Closed(tmp_path), BUCKET, KEY))
    (kept.files / "state").write_text("1")
    kept.keep_now()
    kept.close()
    assert "no checkpoint is kept outside of this pod" in capsys.readouterr().out


def test_a_follower_has_a_folder_of_its_own_and_waits_for_what_rank_0_has_found(tmp_path: Path) -> None:
    first, second = (Kept(tmp_path / "shared", rank=rank, ranks=2) for rank in (0, 1))
    first.pin([])
    assert second.pinned() == []
    assert second.files != first.files
    second.remove()
    second.close()
    assert (tmp_path / "shared" / "inputs.json").exists()
    first.remove()
    assert not (tmp_path / "shared").exists()


def test_a_follower_without_a_shared_folder_reads_it_in_the_bucket(tmp_path: Path) -> None:
    def copy() -> Copy:
        return Copy(FolderStore(tmp_path / "store"), BUCKET, KEY)

    first, second = (Kept(tmp_path / "none", copy, rank=rank, ranks=2) for rank in (0, 1))
    first.pin([])
    assert second.pinned() == []
    for kept in (first, second):
        kept.close()


def test_the_mailbox_is_the_bucket_of_the_input() -> None:
    own, other = ({"storage_provider": "minio.default", "path": path} for path in ("train/in", "train/out"))
    assert config_of({"input": [own], "output": [other]}).mailbox("") == ("minio.default", "train")
    assert config_of({"input": [{"path": "a/in"}, {"path": "b/in"}]}).mailbox("b") == ("minio.default", "b")
    assert config_of({"input": [{"path": "whole"}], "output": [{"path": "whole/out"}]}).mailbox("") == ("", "")
    assert config_of({"input": [{"path": "whole"}], "output": [other]}).mailbox("") == ("minio.default", "train")
    elsewhere = {"storage_provider": "webdav.dcache", "path": "x/y"}
    assert config_of({"input": [elsewhere], "output": [other]}).mailbox("") == ("minio.default", "train")
    private = {"input": [own], "isolation_level": "USER", "bucket_list": ["alice"]}
    assert config_of(private).mailbox("alice") == ("minio.default", "alice")


class Objects:
    """A store whose objects each take as long as `fetched` says; they may have changed by the next time."""

    def __init__(self, fetched: Callable[[], None], *contents: bytes) -> None:
        self.fetched = fetched
        self.contents = list(contents)

    def list(self, bucket: str, prefix: str) -> list[StoredFile]:
        return [StoredFile(f"{prefix}x")]

    def get(self, bucket: str, key: str, target: Path) -> None:
        self.fetched()
        target.write_bytes(self.contents.pop(0))


def test_a_follower_fetches_the_inputs_while_rank_0_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "POLL_S", 0.01)
    follower_has_begun = threading.Event()

    def wait() -> None:
        assert follower_has_begun.wait(30)

    first, second = (Kept(tmp_path / "shared", rank=rank, ranks=2) for rank in (0, 1))
    stores: list[Any] = [Objects(wait, b"1"), Objects(follower_has_begun.set, b"1")]
    wanted = [Select("b", "in/")]
    with ThreadPoolExecutor() as pool:
        staged = [pool.submit(adapter._download, wanted, *each) for each in zip(stores, (first, second), strict=True)]
        found = [[(i.key, i.sha256, i.path.read_bytes()) for i in one.result()] for one in staged]
    assert found[0] == found[1] and found[0][0][::2] == ("in/x", b"1")
    for kept in (first, second):
        kept.close()


def test_ranks_that_found_an_object_changed_do_not_train_together(tmp_path: Path) -> None:
    first, second = (Kept(tmp_path / "shared", rank=rank, ranks=2) for rank in (0, 1))
    first.announce([{"bucket": "b", "key": "in/x", "sha256": ""}])
    store: Any = Objects(lambda: first.pin([{"bucket": "b", "key": "in/x", "sha256": "0" * 64}]), b"2")
    with pytest.raises(InputError, match="b/in/x: has changed since"):
        adapter._download([Select("b", "in/")], store, second)
    for kept in (first, second):
        kept.close()
