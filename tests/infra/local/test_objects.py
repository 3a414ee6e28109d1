"""The store behind the endpoint: transactions, versions, pins, and what is cleaned up when."""

import asyncio
import os
from functools import partial
from hashlib import md5, sha256

import pytest

from infra.local import contents, objects
from infra.local.blobs import Blobs, blocks
from infra.local.contents import INLINE
from infra.local.database import Database, DiskFull
from infra.local.objects import (
    BucketNotEmpty,
    InvalidKey,
    NoSuchBucket,
    NoSuchKey,
    Notification,
    ObjectStore,
    Origin,
    UnknownTarget,
)

pytestmark = pytest.mark.anyio
LARGE = INLINE + 1


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "data"


class Opened:
    """A store on a data folder, which can be closed and opened again."""

    def __init__(self, place):
        self.place = place
        self.database = Database(place / "dioscar.db")
        self.blobs = Blobs(self.database, place / "blobs")
        self.store = ObjectStore(self.database, self.blobs)

    async def put(self, key, data=b"x", bucket="bucket", **more):
        blob = await self.store.ingest_bytes(data)
        return await self.database.write(lambda c: self.store.insert(c, bucket, key, blob, **more))

    async def delete(self, key):
        await self.database.write(partial(self.store.delete, bucket="bucket", key=key))

    async def read(self, stored, path):
        await self.store.materialise(stored, path)
        return path.read_bytes()

    def files(self):
        return [path for path in (self.place / "blobs").rglob("*") if path.is_file()]

    def close(self):
        self.blobs.close()
        self.database.close()


@pytest.fixture
async def opened(place):
    opened = Opened(place)
    await opened.database.write(partial(opened.store.create_bucket, name="bucket"))
    yield opened
    await opened.store.stop()
    opened.close()


@pytest.mark.parametrize("size", [0, 1, INLINE, LARGE, 3_000_000])
async def test_contents_survive_a_restart(place, tmp_path, size):
    data = os.urandom(size)
    first = Opened(place)
    await first.database.write(partial(first.store.create_bucket, name="bucket"))
    stored = await first.put("k", data, metadata={"a": "ü"}, content_type="x/y")
    first.close()
    again = Opened(place)
    try:
        assert again.store.get("bucket", "k") == stored
        assert await again.read(stored, tmp_path / "f") == data
        assert len(again.files()) == (size > INLINE)
    finally:
        again.close()


@pytest.mark.parametrize("nowait", [True, False])
async def test_contents_are_read_whether_they_are_in_memory_or_not(opened, tmp_path, monkeypatch, nowait):
    """Where the system cannot tell, or has to fetch them from the disk, a thread reads them."""
    if not nowait:
        monkeypatch.setattr(contents, "NOWAIT", None)
    data = os.urandom(5_000_000)
    stored = await opened.put("k", data)
    for cold in (False, True):
        if cold and hasattr(os, "posix_fadvise"):
            (file,) = opened.files()
            with file.open("rb") as source:
                os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with opened.store.open(stored) as content:
            assert b"".join([bytes(block) async for block in blocks(content, 3, 4_999_999)]) == data[3:4_999_999]


async def test_a_large_upload_in_pieces_of_any_size_is_hashed_and_kept(opened, monkeypatch):
    monkeypatch.setattr(contents, "SYNC", 1_000_000)
    data = os.urandom(4_000_000)
    async with opened.blobs.writer() as writer:
        start = 0
        for size in (1, 70_000, 1_000_000, 3, 2_000_000, len(data)):
            await writer.write(data[start : start + size])
            start = min(len(data), start + size)
        blob = await writer.finish()
    assert (blob.size, blob.md5, blob.sha256) == (len(data), md5(data).hexdigest(), sha256(data).hexdigest())
    stored = await opened.database.write(lambda c: opened.store.insert(c, "bucket", "k", blob))
    with opened.store.open(stored) as content:
        assert await content.read(0, len(data)) == data


async def test_a_blob_that_is_shorter_than_its_row_is_an_error_and_no_end(opened):
    stored = await opened.put("k", b"x" * LARGE)
    (file,) = opened.files()
    os.truncate(file, 10)
    with opened.store.open(stored) as content, pytest.raises(OSError, match="shorter than its row"):
        async for _ in blocks(content, 0, LARGE):
            pass


async def test_a_finished_file_is_taken_in_as_a_copy(opened, tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"a" * 3_000_000)
    blob = await opened.store.ingest(path)
    path.write_bytes(b"changed")
    stored = await opened.database.write(lambda c: opened.store.insert(c, "bucket", "k", blob))

    assert await opened.read(stored, tmp_path / "f") == b"a" * 3_000_000


async def test_a_link_or_a_pipe_is_not_taken_in(opened, tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError):
            await opened.store.ingest(tmp_path / name)


async def test_what_a_reader_is_given_is_its_own(opened, tmp_path):
    stored = await opened.put("k", b"a" * LARGE)
    await opened.store.materialise(stored, tmp_path / "f")
    (tmp_path / "f").write_bytes(b"damaged")

    assert await opened.read(stored, tmp_path / "g") == b"a" * LARGE
    with pytest.raises(FileExistsError):
        await opened.store.materialise(stored, tmp_path / "g")


async def test_a_listener_is_part_of_the_transaction(opened):
    seen = []

    def listener(connection, stored, event, origin):
        seen.append((stored.key, event, origin.principal, opened.store.find(connection, "bucket", stored.key).id))
        if stored.key == "refused":
            raise RuntimeError("no job, no object")

    opened.store.listeners.append(listener)
    stored = await opened.put("k", origin=Origin("somebody"))
    with pytest.raises(RuntimeError, match="no job"):
        await opened.put("refused")

    assert seen[0] == ("k", "s3:ObjectCreated:Put", "somebody", stored.id)
    assert opened.store.get("bucket", "refused") is None
    assert opened.store.totals() == (1, 1)


async def test_a_removal_is_told_if_somebody_removed_it(opened):
    seen = []
    await opened.put("k")
    await opened.put("l")
    opened.store.listeners.append(lambda _, stored, event, __: seen.append((stored.key, event)))
    await opened.delete("k")
    await opened.database.write(lambda c: opened.store.delete(c, "bucket", "l", origin=Origin("me")))

    assert seen == [("l", objects.REMOVED)]


async def test_a_removal_stands_between_what_it_removed_and_what_comes_next(opened):
    told = []
    opened.store.listeners.append(lambda _, stored, event, __: told.append((stored.id, stored.modified, event)))
    for _ in range(3):
        await opened.put("k")
        await opened.database.write(lambda c: opened.store.delete(c, "bucket", "k", origin=Origin("me")))

    assert [event for *_, event in told] == [objects.PUT, objects.REMOVED] * 3
    numbers, times = [number for number, *_ in told], [time for _, time, _ in told]
    assert numbers == sorted(set(numbers)) and times == sorted(set(times))


async def test_several_objects_of_one_transaction_all_or_none(opened):
    first, second = await opened.store.ingest_bytes(b"a" * LARGE), await opened.store.ingest_bytes(b"b")

    def work(connection, bucket):
        one = opened.store.insert(connection, "bucket", "out/a", first)
        opened.store.insert(connection, "bucket", "next/a", first)  # a forward: another row on the same blob
        opened.store.insert(connection, bucket, "out/b", second)
        return one

    with pytest.raises(NoSuchBucket):
        await opened.database.write(partial(work, bucket="no-such-bucket"))
    assert opened.store.totals() == (0, 0)
    await opened.database.write(partial(work, bucket="bucket"))
    assert list(opened.store.keys("bucket")) == ["next/a", "out/a", "out/b"]
    assert len(opened.files()) == 1


async def test_a_pinned_version_outlives_its_key(opened, tmp_path):
    old = await opened.put("k", b"a" * LARGE)
    await opened.database.write(lambda c: opened.store.pin(c, old.id, "job-1"))
    await opened.database.write(lambda c: opened.store.pin(c, old.id, "job-2"))
    new = await opened.put("k", b"b" * LARGE)
    await opened.delete("k")
    await opened.store.garbage.collect()

    assert opened.store.get("bucket", "k") is None and opened.store.by_id(new.id) is None
    assert await opened.read(opened.store.by_id(old.id), tmp_path / "f") == b"a" * LARGE

    await opened.database.write(lambda c: opened.store.unpin(c, "job-1"))
    await opened.store.garbage.collect()
    assert opened.store.by_id(old.id) == old
    await opened.database.write(lambda c: opened.store.unpin(c, "job-2"))
    await opened.store.garbage.collect()
    await asyncio.to_thread(opened.blobs.close)

    assert opened.store.by_id(old.id) is None and opened.files() == []


async def test_what_is_overwritten_is_cleaned_up_by_itself(opened):
    for _ in range(5):
        await opened.put("k", b"a" * LARGE)
    for _ in range(100):
        await asyncio.sleep(0.05)
        if len(opened.files()) == 1:
            break

    assert len(opened.files()) == 1 and opened.store.totals() == (1, LARGE)


async def test_a_blob_lives_as_long_as_any_object_on_it(opened, tmp_path):
    first = await opened.put("a", b"a" * LARGE)
    second = await opened.database.write(lambda c: opened.store.insert(c, "bucket", "b", first))
    await opened.delete("a")
    await opened.store.garbage.collect()

    assert await opened.read(second, tmp_path / "f") == b"a" * LARGE
    await opened.delete("b")
    await opened.store.garbage.collect()
    with pytest.raises(NoSuchKey, match="is gone"):
        await opened.store.materialise(second, tmp_path / "g")
    with pytest.raises(NoSuchKey):
        await opened.database.write(lambda c: opened.store.insert(c, "bucket", "c", first))


async def test_an_open_reader_finishes_whatever_becomes_of_the_object(opened):
    stored = await opened.put("k", b"a" * LARGE)
    with opened.store.open(stored) as content:
        await opened.delete("k")
        await opened.store.garbage.collect()
        assert await content.read(0, LARGE) == b"a" * LARGE


async def test_what_an_interrupted_process_left_is_removed_at_the_next_start(place):
    first = Opened(place)
    await first.database.write(partial(first.store.create_bucket, name="bucket"))
    kept = await first.put("kept", b"k" * LARGE)
    await first.store.ingest_bytes(b"o" * LARGE)  # written, and never made part of the store
    await first.put("gone", b"g" * LARGE)
    await first.delete("gone")
    first.close()
    assert len(first.files()) == 3
    again = Opened(place)
    try:
        unfinished = await again.store.ingest_bytes(b"n" * LARGE)  # of this process: not to be touched
        await again.store.start()
        for _ in range(100):
            await asyncio.sleep(0.02)
            if len(again.files()) == 2:
                break
        assert len(again.files()) == 2
        await again.database.write(lambda c: again.store.insert(c, "bucket", "new", unfinished))
        assert again.store.get("bucket", "kept") == kept
        await again.store.stop()
    finally:
        again.close()


async def test_a_full_bucket_is_deleted_at_once_and_emptied_later(opened):
    kept = [await opened.put(f"k{number}", b"a" * LARGE) for number in range(3)]
    await opened.database.write(lambda c: opened.store.pin(c, kept[0].id, "job"))
    with pytest.raises(BucketNotEmpty):
        await opened.database.write(partial(opened.store.delete_bucket, name="bucket"))
    await opened.database.write(partial(opened.store.delete_bucket, name="bucket", force=True))
    await opened.database.write(partial(opened.store.create_bucket, name="bucket"))

    assert list(opened.store.keys("bucket")) == [] and opened.store.totals() == (0, 0)
    assert opened.store.by_id(kept[0].id).bucket == "bucket"
    await opened.store.garbage.collect()
    assert opened.store.by_id(kept[1].id) is None and opened.store.by_id(kept[0].id) is not None
    await opened.database.write(lambda c: opened.store.unpin(c, "job"))
    await opened.store.garbage.collect()
    count = opened.database.read.execute("SELECT count(*) FROM buckets").fetchone()[0]
    assert (opened.store.by_id(kept[0].id), count) == (None, 1)


async def test_a_services_empty_bucket_goes_with_it(opened):
    def work(connection):
        opened.store.create_bucket(connection, "service", service="s")
        opened.store.create_bucket(connection, "service", service="other", exist_ok=True)
        return (
            opened.store.delete_bucket_if_empty(connection, "service", service="other"),
            opened.store.delete_bucket_if_empty(connection, "service", service="s"),
            opened.store.delete_bucket_if_empty(connection, "service", service="s"),
        )

    assert await opened.database.write(work) == (False, True, False)


async def test_which_targets_an_event_goes_to(opened):
    opened.store.targets.append(lambda arn: arn.startswith("arn:"))
    wanted = [
        Notification("1", "arn:a", ("s3:ObjectCreated:*",), prefix="in/"),
        Notification("2", "arn:b", ("s3:ObjectCreated:Put",), suffix=".fil"),
        Notification("3", "arn:a", ("s3:ObjectCreated:*",), prefix="in/x"),
        Notification("4", "arn:c", ("s3:ObjectRemoved:*",)),
    ]
    await opened.database.write(lambda c: opened.store.set_notifications(c, "bucket", wanted))

    def targets(key, event):
        return opened.store.matching(opened.database.read, "bucket", key, event)

    assert opened.store.notifications("bucket") == wanted
    assert targets("in/x.fil", objects.PUT) == ["arn:a", "arn:b"]
    assert targets("in/x.fil", objects.COPY) == ["arn:a"]
    assert targets("out/x", objects.PUT) == []
    assert targets("out/x", objects.REMOVED) == ["arn:c"]

    with pytest.raises(UnknownTarget, match="A specified destination ARN does not exist or is not well-formed"):
        await opened.database.write(
            lambda c: opened.store.set_notifications(c, "bucket", [Notification("5", "other", ("s3:*",))])
        )
    assert opened.store.notifications("bucket") == wanted


@pytest.mark.parametrize("key", ["", "a\0b", "x" * 1025, "ü" * 513, "\ud800"])
async def test_a_key_that_is_none(opened, key):
    with pytest.raises(InvalidKey):
        await opened.put(key)


async def test_a_full_disk_is_said_and_leaves_nothing(opened, monkeypatch):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = await opened.put("kept", b"k" * LARGE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        with pytest.raises(DiskFull, match="no space left"):
            await opened.put("large", b"x" * 4_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await opened.put("after", b"y" * LARGE)
    await asyncio.sleep(0.1)

    assert len(opened.files()) == 2
    assert list(opened.store.keys("bucket")) == ["after", "kept"] and opened.store.get("bucket", "kept") == kept
