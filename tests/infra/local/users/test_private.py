"""`isolation_level: USER`: each allowed user has a bucket of their own at another's service."""

from typing import Any

from tests.cluster import Cluster, eventually
from tests.infra.local.users.conftest import COPY, Person, denied

SHARED: dict[str, Any] = {"script": COPY, "visibility": "restricted", "isolation_level": "USER"}


def uids(cluster: Cluster, issuer: Any) -> tuple[Person, Person]:
    """Two users whose uids can be part of a bucket's name, as those of EGI and Keycloak."""
    return (
        Person(cluster, issuer, "aaaaaaaaaa-owner@example.org"),
        Person(cluster, issuer, "bbbbbbbbbb-guest@example.org"),
    )


def test_what_a_user_uploads_comes_back_to_that_user(cluster: Cluster, issuer: Any, alice: Person, bob: Person) -> None:
    owner, guest = uids(cluster, issuer)
    try:
        owner.deploy("apart", allowed_users=[guest.uid, alice.uid[:5] + "xxxxxxxx"], **SHARED)
        shown = owner.get("/system/services/apart").json()
        assert shown["bucket_list"] == ["apart-bbbbbbbbbb", "apart-alicexxxxx"]
        guest.s3.put_object(Bucket="apart-bbbbbbbbbb", Key="in/mine", Body=b"mine")
        eventually(lambda: guest.s3.list_objects_v2(Bucket="apart-bbbbbbbbbb", Prefix="out/").get("Contents"))
        got = guest.s3.get_object(Bucket="apart-bbbbbbbbbb", Key="out/mine")["Body"].read()
        assert got == b"mine"
        assert "Contents" not in owner.s3.list_objects_v2(Bucket="apart", Prefix="out/")
        assert denied(alice.s3.list_objects_v2, Bucket="apart-bbbbbbbbbb") == "AccessDenied"
        assert [job["key"] for job in guest.jobs(service="apart")] == ["in/mine"]
        owner.deploy("apart", 204, change=True, allowed_users=[guest.uid], **SHARED)
        owner.deploy("apart", 204, change=True, allowed_users=[], **SHARED)
        guest.s3.put_object(Bucket="apart-bbbbbbbbbb", Key="in/later", Body=b"later")
        assert len(guest.jobs(service="apart")) == 1, "who is allowed no longer triggers nothing"
        assert owner.ask("DELETE", "/system/services/apart").status_code == 204
        assert guest.s3.get_object(Bucket="apart-bbbbbbbbbb", Key="out/mine")["Body"].read() == b"mine"
    finally:
        owner.close()
        guest.close()


def test_nobody_comes_by_a_bucket_that_way(cluster: Cluster, issuer: Any, alice: Person, bob: Person) -> None:
    owner, guest = uids(cluster, issuer)
    try:
        made = guest.ask("POST", "/system/buckets", json={"bucket_name": "lure-bbbbbbbbbb", "visibility": "private"})
        assert made.status_code == 201
        said = owner.deploy("lure", 403, allowed_users=[guest.uid], **SHARED)
        assert 'the bucket "lure-bbbbbbbbbb", which ' in said
        assert "lure" not in owner.services()
        owner.deploy("left", allowed_users=[guest.uid], **SHARED)
        guest.s3.put_object(Bucket="left-bbbbbbbbbb", Key="kept", Body=b"x")
        assert owner.ask("DELETE", "/system/services/left").status_code == 204
        bob.deploy("left", 403, allowed_users=[guest.uid], **SHARED)
        assert denied(bob.s3.list_objects_v2, Bucket="left-bbbbbbbbbb") == "AccessDenied"
        forged = {"bucket_list": ["left-bbbbbbbbbb"], "allowed_users": [], **SHARED}
        bob.deploy("forged", **forged)
        assert bob.get("/system/services/forged").json()["bucket_list"] == []
        wrong = bob.deploy("wrong-name", 400, allowed_users=["no@bucket!x"], **SHARED)
        assert "wrong-name-no@bucket!" in wrong
    finally:
        owner.close()
        guest.close()


def test_a_shared_bucket_does_not_change_hands(alice: Person, bob: Person) -> None:
    """A bucket that a service left behind keeps the visibility that its owner gave it."""
    alice.deploy("handed", visibility="restricted", allowed_users=[bob.uid], script="true")
    alice.s3.put_object(Bucket="handed", Key="kept", Body=b"x")
    assert alice.ask("DELETE", "/system/services/handed").status_code == 204
    bob.deploy("handed", visibility="public", script="true")
    (shown,) = [one for one in bob.get("/system/buckets").json() if one["bucket_name"] == "handed"]
    assert (shown["visibility"], shown["owner"]) == ("restricted", alice.uid)
