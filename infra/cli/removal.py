"""`delete`, `rm`: services and objects go, and what stays is said."""

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from infra.cli.errors import DIOSCAR, CliError, Exit
from infra.cli.objects import PATTERN, is_object, named, split_place
from infra.cli.output import json_option, print_json
from infra.cli.target import Target, cluster_option, split_path, store_errors, target

if TYPE_CHECKING:
    from minio import Minio


@click.command()
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="On an OSCAR cluster, where their buckets go with all that is in them.")
@cluster_option
@json_option
def delete(services: tuple[str, ...], yes: bool, cluster: str | None, as_json: bool) -> None:
    """Undeploy services; open jobs are cancelled, buckets that hold objects stay."""
    there = target(cluster)
    documents = [there.service(name) for name in dict.fromkeys(services)]  # all are there, or none goes
    if not yes and not _is_embedded(there):
        raise CliError(
            f"{there.url}: OSCAR deletes a service's buckets with all in them; get what you need, then add --yes",
            Exit.USAGE,
        )
    gone = []
    for document in documents:
        there.delete(f"/system/services/{document['name']}")
        gone.append({"service": document["name"], "kept": list(_kept(there, document))})
    if as_json:
        print_json(gone)
        return
    for entry in gone:
        click.echo(f"{entry['service']} deleted")
        for bucket in entry["kept"]:
            click.echo(f"its bucket {bucket} holds objects and stays; {DIOSCAR} rm -r {bucket} removes it")


@click.command()
@click.argument("places", metavar="BUCKET/KEY...", nargs=-1, required=True)
@click.option("-r", "--recursive", is_flag=True, help="All below a folder, or a bucket with all that is in it.")
@cluster_option
@json_option
def rm(places: tuple[str, ...], recursive: bool, cluster: str | None, as_json: bool) -> None:
    """Remove objects: a key, or a pattern ('out/*.png'); with -r all below a folder, or a whole bucket."""
    there = target(cluster)
    wanted = [(place, *split_place(place), _found(there.store, place, recursive=recursive)) for place in places]
    removed = []
    for place, bucket, key, found in wanted:  # what is misspelt was refused before anything went
        with store_errors(place):
            _remove(there.store, bucket, found)
        gone = not key and _remove_bucket(there, bucket)
        removed.append({"place": place, "objects": len(found), "bucket": gone})
        if not as_json:
            what = f"{_count(len(found))} and the bucket" if gone else _count(len(found))
            click.echo(f"{place} removed" if found == [key] else f"{place}: {what} removed")
    if as_json:
        print_json(removed)


def _found(store: "Minio", place: str, *, recursive: bool) -> list[str]:
    """The keys that a place names. Raises CliError where there are none, or more than was asked for."""
    bucket, key = split_place(place)
    if not bucket:
        raise CliError(f'"{place}" names no bucket; write BUCKET/KEY', Exit.USAGE)
    with store_errors(place):
        exact = [key] if key and is_object(store, bucket, key) else []
        if not exact and PATTERN.search(key):
            return [name for name, _ in named(store, bucket, key, place)]
        if exact and not recursive:
            return exact
        prefix = key if not key or key.endswith("/") else f"{key}/"
        below = (str(entry.object_name) for entry in store.list_objects(bucket, prefix=prefix, recursive=True))
        found = list(dict.fromkeys([*exact, *below])) if recursive else list(islice(below, 1))
    if not recursive and (found or not key):
        raise CliError(f"{place}: is a {'folder' if key else 'bucket'}; -r removes it with all in it", Exit.USAGE)
    if not found and key:
        raise CliError(f"{place}: there is no such object; {DIOSCAR} ls shows what there is", Exit.NOT_FOUND)
    return found


def _remove(store: "Minio", bucket: str, keys: list[str]) -> None:
    from minio.deleteobjects import DeleteObject

    for error in store.remove_objects(bucket, [DeleteObject(key) for key in keys]):
        raise CliError(f"{bucket}/{error.name}: {error.message} ({error.code})")


def _remove_bucket(there: Target, bucket: str) -> bool:
    """Remove an emptied bucket, unless a service waits for what comes into it; whether it went."""
    services = dict.fromkeys(box.service for box in there.mailboxes() if box.bucket == bucket)
    if services:
        click.echo(f"the bucket {bucket} stays: {', '.join(services)} listens to it", err=True)
        return False
    with store_errors(bucket):
        there.store.remove_bucket(bucket)
    return True


def _kept(there: Target, document: dict[str, Any]) -> Iterator[str]:
    """The buckets of a deleted service that are still there because of what they hold."""
    entries = [*(document.get("input") or []), *(document.get("output") or [])]
    buckets = dict.fromkeys(split_path(entry["path"])[0] for entry in entries if entry.get("path"))
    for bucket in buckets:
        with store_errors(bucket):
            if there.store.bucket_exists(bucket) and any(True for _ in there.store.list_objects(bucket)):
                yield bucket


def _is_embedded(there: Target) -> bool:
    try:
        there.get("/dioscar/v1/status")
    except CliError as error:
        if error.status != Exit.NOT_FOUND:
            raise
        return False
    return True


def _count(number: int) -> str:
    return f"{number} object{'' if number == 1 else 's'}"
