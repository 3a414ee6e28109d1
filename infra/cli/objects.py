"""`ls`, `mb`, `put`, `get`: objects of any cluster, through its own object store."""

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from fdl.errors import FdlError
from infra.cli.errors import DIOSCAR, CliError, Exit
from infra.cli.output import human_size, json_option, print_json, print_table, progress
from infra.cli.target import Target, cluster_option, store_errors, target

if TYPE_CHECKING:
    from minio import Minio
    from rich.progress import Progress, TaskID

PART_SIZE = 16 * 2**20
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{1,62}")
PATTERN = re.compile(r"[*?\[]")


@click.command()
@click.argument("place", metavar="[BUCKET[/PREFIX]]", default="")
@click.option("-r", "--recursive", is_flag=True, help="All below the prefix, not only the next level.")
@cluster_option
@json_option
def ls(place: str, recursive: bool, cluster: str | None, as_json: bool) -> None:
    """List buckets, or what is in one."""
    store = target(cluster).store
    bucket, prefix = split_place(place)
    with store_errors(place or "the object store"):
        if not bucket:
            buckets = [(entry.name, f"{entry.creation_date:%Y-%m-%d %H:%M:%S}") for entry in store.list_buckets()]
            if as_json:
                print_json([{"bucket": name, "created": created} for name, created in buckets])
            else:
                print_table(["BUCKET", "CREATED"], buckets, empty="There are no buckets yet.")
            return
        found: list[Any] = list(store.list_objects(bucket, prefix=prefix, recursive=recursive))
        if not found and prefix and not prefix.endswith("/"):
            found = list(store.list_objects(bucket, prefix=f"{prefix}/", recursive=recursive))
    if len(found) == 1 and found[0].is_dir and f"{prefix}/" == found[0].object_name:
        with store_errors(place):
            found = list(store.list_objects(bucket, prefix=f"{prefix}/", recursive=recursive))
    found = [entry for entry in found if not (entry.object_name or "").endswith("/") or entry.is_dir]
    if as_json:
        print_json([_facts(bucket, entry) for entry in found])
        return
    rows = [
        ("-" if entry.is_dir else human_size(entry.size or 0), _moment(entry), entry.object_name) for entry in found
    ]
    print_table([">SIZE", "MODIFIED", "KEY"], rows, empty=f"There is nothing in {place} yet.")


@click.command()
@click.argument("buckets", metavar="BUCKET...", nargs=-1, required=True)
@cluster_option
def mb(buckets: tuple[str, ...], cluster: str | None) -> None:
    """Make buckets, for what belongs to no service; a service's own are made when it is deployed."""
    from minio.error import S3Error

    store = target(cluster).store
    for place in buckets:
        bucket, key = split_place(place)
        if key:
            raise CliError(
                f"{place}: is a place in a bucket; folders need no making: {DIOSCAR} mb {bucket}", Exit.USAGE
            )
        with store_errors(bucket):
            try:
                store.make_bucket(bucket)
            except ValueError as error:
                raise CliError(f"{place}: is no name for a bucket ({error})", Exit.USAGE) from None
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise
                click.echo(f"{bucket} is there already")
            else:
                click.echo(f"{bucket} made")


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.argument("place", metavar="BUCKET[/FOLDER]")
@click.option("--name", metavar="NAME", help="The object's name below the folder; the file's own by default.")
@cluster_option
@json_option
def put(files: tuple[Path, ...], place: str, name: str | None, cluster: str | None, as_json: bool) -> None:
    """Upload files into a folder of a bucket; a mailbox such as pulsar-preprocess/in starts its service."""
    there = target(cluster)
    bucket, folder = split_place(place)
    uploads = list(_uploads(files, folder, name))
    written: list[dict[str, Any]] = []
    with progress(size=True) as bar, store_errors(place, f"{DIOSCAR} mb {bucket} makes it"):
        for path, key in uploads:
            upload(there.store, path, bucket, key, bar)
            written.append({"bucket": bucket, "key": key, "size": path.stat().st_size})
    if as_json:
        print_json(written)
        return
    for entry in written:
        click.echo(f"{entry['bucket']}/{entry['key']} ({human_size(entry['size'])})")
    _say_if_beside(there, bucket, [key for _, key in uploads])


@click.command()
@click.argument("places", metavar="BUCKET/KEY...", nargs=-1, required=True)
@click.option(
    "--to",
    "folder",
    metavar="DIR",
    default=".",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to put them. Default: here.",
)
@cluster_option
@json_option
def get(places: tuple[str, ...], folder: Path, cluster: str | None, as_json: bool) -> None:
    """Download objects: a key, all below a folder (out/), or a pattern ('out/*.png')."""
    there = target(cluster)
    written = []
    with progress(size=True) as bar:
        for place in places:
            bucket, key = split_place(place)
            with store_errors(place):
                for found, name in named(there.store, bucket, key, place):
                    path = inside(folder, name)
                    download(there.store, bucket, found, path, bar)
                    written.append(path)
    if as_json:
        print_json([str(path) for path in written])
        return
    for path in written:
        click.echo(f"{path} ({human_size(path.stat().st_size)})")


def split_place(place: str) -> tuple[str, str]:
    """`bucket/some/key` as its two parts; a leading `s3://` or slash is no harm."""
    bucket, _, key = place.removeprefix("s3://").lstrip("/").partition("/")
    if bucket and not BUCKET.fullmatch(bucket):
        raise CliError(f'"{place}": begins with no name of a bucket; write BUCKET/KEY', Exit.USAGE)
    return bucket, key


def upload(store: "Minio", path: Path, bucket: str, key: str, bar: "Progress") -> None:
    """Upload one file, in parts where it is large, with its progress on `bar`."""
    store.fput_object(bucket, key, str(path), part_size=PART_SIZE, progress=_Meter(bar, path.name))


def download(store: "Minio", bucket: str, key: str, path: Path, bar: "Progress") -> None:
    """Download one object; the file appears when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store.fget_object(bucket, key, str(path), progress=_Meter(bar, path.name))


def named(store: "Minio", bucket: str, key: str, place: str) -> Iterator[tuple[str, str]]:
    """The keys that a place names, each with its name below the target folder."""
    if key and not key.endswith("/") and not PATTERN.search(key):
        if is_object(store, bucket, key):
            yield key, PurePosixPath(key).name
            return
        key = f"{key}/"  # a folder
    fixed = PATTERN.split(key)[0]
    base = fixed.rpartition("/")[0]
    pattern = key if fixed != key else f"{key}*"
    found = False
    for entry in store.list_objects(bucket, prefix=fixed, recursive=True):
        name = entry.object_name or ""
        if fnmatch.fnmatchcase(name, pattern) and not name.endswith("/"):
            found = True
            yield name, name.removeprefix(base).lstrip("/")
    if not found:
        raise CliError(f"{place}: there is no such object; {DIOSCAR} ls shows what there is", Exit.NOT_FOUND)


def is_object(store: "Minio", bucket: str, key: str) -> bool:
    """Whether there is an object of that very key."""
    from minio.error import S3Error

    try:
        store.stat_object(bucket, key)
    except S3Error as error:
        if error.code != "NoSuchKey":
            raise
        return False
    return True


def inside(folder: Path, name: str) -> Path:
    """The path of `name` below `folder`. Raises CliError where a key would lead out of it."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\0" in name:
        raise CliError(f'the key "{name}" leads out of {folder}; get it under its own name', Exit.BAD_INPUT)
    return folder.joinpath(*parts)


def _say_if_beside(there: Target, bucket: str, keys: list[str]) -> None:
    """Say so where somebody waits for objects in this bucket, but not for these."""
    try:
        boxes = [box for box in there.mailboxes() if box.bucket == bucket]
    except (CliError, FdlError):
        return  # who may upload need not be let in to the services
    beside = [key for key in keys if not any(box.takes(bucket, key) for box in boxes)]
    if boxes and beside:
        places = ", ".join(dict.fromkeys(f"{box.service} listens to {box}" for box in boxes))
        click.echo(f"note: no service listens to {bucket}/{beside[0]}, so nothing starts; {places}", err=True)


def _uploads(files: tuple[Path, ...], folder: str, name: str | None) -> Iterator[tuple[Path, str]]:
    """Files with their keys; a folder brings all that is below it, under its own name."""
    if name is not None and (len(files) != 1 or files[0].is_dir()):
        raise CliError("--name is for one file", Exit.USAGE)
    base = folder.strip("/")
    for file in files:
        if file.is_dir():
            for path in sorted(path for path in file.rglob("*") if path.is_file()):
                yield path, _join(base, f"{file.resolve().name}/{path.relative_to(file).as_posix()}")
        else:
            yield file, _join(base, name or file.name)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


class _Meter:
    """What minio tells about an upload or download, on a bar."""

    def __init__(self, bar: "Progress", name: str) -> None:
        self._bar = bar
        self._task: TaskID = bar.add_task(name, total=None)

    def set_meta(self, object_name: str, total_length: int) -> None:
        """How much there will be."""
        self._bar.update(self._task, total=total_length)

    def update(self, length: int) -> None:
        """How much came."""
        self._bar.advance(self._task, length)


def _facts(bucket: str, entry: Any) -> dict[str, Any]:
    return {
        "bucket": bucket,
        "key": entry.object_name,
        "folder": entry.is_dir,
        "size": entry.size,
        "modified": entry.last_modified.timestamp() if entry.last_modified else None,
        "etag": entry.etag,
    }


def _moment(entry: Any) -> str:
    return f"{entry.last_modified.astimezone():%Y-%m-%d %H:%M:%S}" if entry.last_modified else "-"
