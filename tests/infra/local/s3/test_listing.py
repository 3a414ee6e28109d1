"""Listings: of both versions, page by page, against a model."""

from contextlib import closing

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.local import buckets, listing
from infra.local.blobs import Blobs
from infra.local.database import Database
from infra.local.objects import ObjectStore
from tests.infra.local.s3.helpers import code


@pytest.fixture(scope="module")
def tree(s3):
    s3.create_bucket(Bucket="tree")
    keys = ["a/1", "a/2", "a/b/3", "b+c/ü &<.txt", "b/1", "top", "top2", "z/"]
    for key in keys:
        s3.put_object(Bucket="tree", Key=key, Body=b"x")
    return sorted(keys)


def pages(client, operation, **arguments):
    keys, prefixes = [], []
    for page in client.get_paginator(operation).paginate(Bucket="tree", **arguments):
        keys += [entry["Key"] for entry in page.get("Contents", [])]
        prefixes += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
    return keys, prefixes


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_pages_of_any_size_make_the_same_whole(s3, tree, operation, size):
    config = {"PageSize": size}
    assert pages(s3, operation, PaginationConfig=config) == (tree, [])
    found = pages(s3, operation, PaginationConfig=config, Delimiter="/")
    assert found == (["top", "top2"], ["a/", "b+c/", "b/", "z/"])
    assert pages(s3, operation, PaginationConfig=config, Delimiter="/", Prefix="a/") == (["a/1", "a/2"], ["a/b/"])


def test_starting_after_a_key(s3, tree):
    found = s3.list_objects_v2(Bucket="tree", StartAfter="b/1")
    assert [entry["Key"] for entry in found["Contents"]] == ["top", "top2", "z/"] and found["KeyCount"] == 3
    assert found["StartAfter"] == "b/1"
    assert s3.list_objects_v2(Bucket="tree", MaxKeys=0)["KeyCount"] == 0


def test_a_bad_page(s3, tree):
    for arguments in ({"ContinuationToken": "no token"}, {"MaxKeys": -1}):
        with pytest.raises(ClientError) as caught:
            s3.list_objects_v2(Bucket="tree", **arguments)
        assert code(caught) == ("InvalidArgument", 400)


def test_the_minio_client_walks_the_tree(minio, tree):
    assert [entry.object_name for entry in minio.list_objects("tree", recursive=True)] == tree
    assert {entry.object_name for entry in minio.list_objects("tree")} == {"a/", "b+c/", "b/", "top", "top2", "z/"}
    assert [e.object_name for e in minio.list_objects("tree", recursive=True, use_api_v1=True)] == tree


def test_versions_are_one_each(s3, tree):
    found = s3.list_object_versions(Bucket="tree", MaxKeys=3)
    assert [(entry["Key"], entry["VersionId"], entry["IsLatest"]) for entry in found["Versions"]] == [
        (key, "null", True) for key in tree[:3]
    ]
    assert found["NextKeyMarker"] == tree[2]


def test_more_than_a_page(endpoint, s3):
    s3.create_bucket(Bucket="many")
    blob = endpoint.call(endpoint.store.ingest_bytes, b"x")

    def fill(connection):
        for number in range(2_345):
            endpoint.store.insert(connection, "many", f"in/{number:05}", blob)

    endpoint.write(fill)
    found = list(s3.get_paginator("list_objects_v2").paginate(Bucket="many"))

    assert [page["KeyCount"] for page in found] == [1000, 1000, 345]
    assert found[0]["MaxKeys"] == 1000
    first = s3.list_objects(Bucket="many", MaxKeys=5000)
    assert first["MaxKeys"] == 1000 and first["IsTruncated"] and first["NextMarker"] == "in/00999"


# A model of a listing, and the store's own against it

characters = st.sampled_from(["a", "b", "/", "-", "ü", "\ud7ff", "\ue000", "🙂", "\U0010ffff"])
texts = st.text(characters, max_size=5)


def model(keys, prefix, delimiter, after, limit):
    entries = set()
    for key in keys:
        if key.startswith(prefix):
            end = key.find(delimiter, len(prefix)) if delimiter else -1
            entries.add(key if end < 0 else key[: end + len(delimiter)] + "\0group")
    rest = sorted(entry for entry in entries if entry.removesuffix("\0group") > after)
    shown = rest[:limit]
    objects = [entry for entry in shown if not entry.endswith("\0group")]
    prefixes = [entry.removesuffix("\0group") for entry in shown if entry.endswith("\0group")]
    more = shown[-1].removesuffix("\0group") if shown and len(rest) > limit else None
    return objects, prefixes, more


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    data = tmp_path_factory.mktemp("listing")
    with closing(Database(data / "db")) as database, closing(Blobs(database, data / "blobs")) as blobs:
        yield ObjectStore(database, blobs)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    keys=st.sets(st.text(characters, min_size=1, max_size=6), max_size=20),
    prefix=texts,
    delimiter=st.sampled_from(["", "/", "a", "/-", "🙂"]),
    after=texts,
    limit=st.integers(1, 6),
)
def test_a_page_is_what_the_model_says(store, keys, prefix, delimiter, after, limit):
    def fill(connection):
        connection.execute("DELETE FROM objects")
        connection.execute("DELETE FROM buckets")
        store.create_bucket(connection, "model")
        number = buckets.number(connection, "model")
        connection.execute("INSERT OR IGNORE INTO blobs VALUES (1, 0, '', '', x'')")
        connection.executemany(
            "INSERT INTO objects (bucket, key, blob, size, etag, sha256, modified, content_type, metadata, headers,"
            " tags, checksums, parts) VALUES (?, ?, 1, 0, '', '', 0, '', '{}', '{}', '{}', '{}', '[]')",
            [(number, key) for key in keys],
        )
        return number

    number = store.database.write_blocking(fill)
    found = listing.page(store.database.read, number, prefix, delimiter, after, limit)

    assert ([e.key for e in found.objects], list(found.prefixes), found.next) == model(
        keys, prefix, delimiter, after, limit
    )
