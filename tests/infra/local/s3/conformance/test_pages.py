"""Listings."""

import requests

from tests.infra.local.s3.conformance.stores import fill, keys, prefixes


def test_list_v2_page_by_page(s3, bucket):
    fill(s3, bucket, "a", "b/1", "b/2", "b/3", "c")
    first = s3.list_objects_v2(Bucket=bucket, MaxKeys=2)
    assert keys(first) == ["a", "b/1"] and first["IsTruncated"] and first["KeyCount"] == 2
    second = s3.list_objects_v2(Bucket=bucket, MaxKeys=3, ContinuationToken=first["NextContinuationToken"])
    assert keys(second) == ["b/2", "b/3", "c"] and not second["IsTruncated"]
    assert keys(s3.list_objects_v2(Bucket=bucket, StartAfter="b/2")) == ["b/3", "c"]
    assert keys(s3.list_objects_v2(Bucket=bucket, Prefix="b/")) == ["b/1", "b/2", "b/3"]
    assert keys(s3.list_objects_v2(Bucket=bucket, Prefix="b/2")) == ["b/2"]
    assert keys(s3.list_objects_v2(Bucket=bucket, Prefix="nothing")) == []


def test_list_v2_by_folder(s3, bucket):
    fill(s3, bucket, "a", "b/1", "b/c/2", "d/3", "e")
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert (keys(page), prefixes(page)) == (["a", "e"], ["b/", "d/"])
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/", Prefix="b/")
    assert (keys(page), prefixes(page)) == (["b/1"], ["b/c/"])
    first = s3.list_objects_v2(Bucket=bucket, Delimiter="/", MaxKeys=2)
    assert (keys(first), prefixes(first)) == (["a"], ["b/"])
    token = first["NextContinuationToken"]
    second = s3.list_objects_v2(Bucket=bucket, Delimiter="/", MaxKeys=2, ContinuationToken=token)
    assert (keys(second), prefixes(second), second["IsTruncated"]) == (["e"], ["d/"], False)


def test_list_v2_by_another_delimiter(s3, bucket):
    fill(s3, bucket, "run-1", "run-2", "x")
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="-")
    assert (keys(page), prefixes(page)) == (["x"], ["run-"])


def test_list_v1_page_by_page(s3, bucket):
    fill(s3, bucket, "a", "b/1", "b/2", "c")
    first = s3.list_objects(Bucket=bucket, MaxKeys=2, Delimiter="/")
    assert (keys(first), prefixes(first), first["NextMarker"]) == (["a"], ["b/"], "b/")
    second = s3.list_objects(Bucket=bucket, Marker="b/", Delimiter="/")
    assert (keys(second), prefixes(second), second["IsTruncated"]) == (["c"], [], False)
    assert keys(s3.list_objects(Bucket=bucket, Marker="b/1")) == ["b/2", "c"]


def test_a_listing_is_in_the_order_of_bytes(s3, bucket):
    names = ["A", "a", "a-b", "aa", "b", "ä", "z"]
    fill(s3, bucket, *names)
    assert keys(s3.list_objects_v2(Bucket=bucket)) == sorted(names, key=str.encode)


def test_a_folder_is_listed_where_its_slash_stands(s3, bucket):
    fill(s3, bucket, "a/1", "a-b", "a0")
    assert keys(s3.list_objects_v2(Bucket=bucket)) == ["a-b", "a/1", "a0"]


def test_a_page_has_a_thousand_keys_at_most(s3, bucket):
    page = s3.list_objects_v2(Bucket=bucket, MaxKeys=5000)
    assert page["MaxKeys"] == 1000


def test_what_a_listing_says_of_an_object(s3, bucket):
    put = s3.put_object(Bucket=bucket, Key="k", Body=b"hello")
    (entry,) = s3.list_objects_v2(Bucket=bucket, FetchOwner=True)["Contents"]
    assert (entry["Size"], entry["ETag"], entry["StorageClass"]) == (5, put["ETag"], "STANDARD")


def test_names_in_a_listing_are_encoded_if_asked(store, s3, bucket):
    fill(s3, bucket, "a b/c+d")
    url = s3.generate_presigned_url("list_objects_v2", {"Bucket": bucket, "EncodingType": "url", "Delimiter": "/"})
    assert "<Prefix>a+b/</Prefix>" in requests.get(url, timeout=10).text
    url = s3.generate_presigned_url("list_objects_v2", {"Bucket": bucket, "EncodingType": "url"})
    assert "<Key>a+b/c%2Bd</Key>" in requests.get(url, timeout=10).text
