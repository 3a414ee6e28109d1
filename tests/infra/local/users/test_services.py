"""What users see and may do by OSCAR's API: their own services, and those shared with them; jobs and logs likewise."""

import base64
import time
from typing import Any

import pytest
import requests

from tests.cluster import FUNCTION_SCRIPT, Cluster, eventually
from tests.infra.local.users.conftest import COPY, Person
from tests.infra.local.users.issuer import GROUP, TestIssuer


def ended(person: Person, service: str, count: int = 1) -> list[dict[str, Any]]:
    def look() -> list[dict[str, Any]] | None:
        done = [job for job in person.jobs(service=service) if job["state"] in ("Succeeded", "Dead")]
        return done if len(done) >= count else None

    return eventually(look, what=f"the end of {count} jobs of {service}")


def test_the_administrator_needs_no_issuer(cluster: Cluster, alice: Person) -> None:
    assert cluster.get("/system/info")["version"]
    config = cluster.get("/system/config")
    assert config["minio_provider"]["access_key"] == cluster.facts["minio_access_key"]
    wrong = requests.get(cluster.url("/system/services"), auth=("oscar", "wrong"), timeout=60)
    assert wrong.status_code == 401
    assert wrong.headers["WWW-Authenticate"].startswith("Basic")


def test_a_user_has_keys_of_their_own(cluster: Cluster, alice: Person, bob: Person) -> None:
    assert alice.keys["access_key"] == alice.uid
    assert alice.keys["secret_key"] not in ("", bob.keys["secret_key"], cluster.facts["minio_secret_key"])
    assert alice.get("/system/config").json()["minio_provider"] == alice.keys


@pytest.mark.parametrize("path", ["/system/services", "/system/config", "/system/buckets", "/dioscar/v1/jobs"])
def test_who_is_not_let_in(cluster: Cluster, issuer: TestIssuer, path: str) -> None:
    good = issuer.token("carol@example.org")
    tokens = {
        "x": 400,
        f"{good[:-6]}AAAAAA": 401,
        issuer.token("carol", exp=int(time.time()) - 3600): 401,
        issuer.token("carol", group_membership=["others"]): 401,
        issuer.token("carol", iss="https://elsewhere.example.org"): 401,
        issuer.token("cluster_admin"): 401,
        issuer.token(cluster.facts["minio_access_key"]): 401,
        issuer.token("a,b"): 401,
        "0" * 64: 400,
    }
    for token, status in tokens.items():
        answer = requests.get(cluster.url(path), headers={"Authorization": f"Bearer {token}"}, timeout=60)
        assert (answer.status_code, answer.text.count("\n")) == (status, 0), answer.text
        assert 10 < len(answer.text) < 400
    assert "Traceback" not in cluster.log


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/metrics"),
        ("GET", "/dioscar/v1/status"),
        ("POST", "/dioscar/v1/replay"),
        ("POST", "/dioscar/v1/backup"),
    ],
)
def test_what_only_the_administrator_may_do(alice: Person, method: str, path: str) -> None:
    answer = alice.ask(method, path, data="{}")
    assert (answer.status_code, answer.text) == (403, "only the administrator of this cluster may do this")


def test_a_private_service_is_its_owners(cluster: Cluster, alice: Person, bob: Person) -> None:
    alice.deploy("alice-private")
    assert "alice-private" in alice.services()
    assert "alice-private" not in bob.services()
    shown = alice.get("/system/services/alice-private").json()
    assert shown["owner"] == alice.uid
    assert cluster.get("/system/services/alice-private")["owner"] == alice.uid
    assert bob.get("/system/services/alice-private").status_code == 403
    bob.deploy("alice-private", 400)
    bob.deploy("alice-private", 403, change=True)
    assert bob.ask("DELETE", "/system/services/alice-private").status_code == 403
    assert bob.get("/system/logs/alice-private").status_code == 403
    for way in ("run", "job"):
        assert bob.ask("POST", f"/{way}/alice-private", data="eA==").status_code == 404
        assert bob.ask("POST", f"/{way}/absent", data="eA==").status_code == 404
        assert alice.ask("POST", f"/{way}/alice-private", data="eA==").status_code in (200, 201)
    ended(alice, "alice-private")
    assert len(cluster.jobs(service="alice-private")) == 1, "what is refused queues nothing"


def test_no_route_shows_another_users_service(alice: Person, bob: Person) -> None:
    alice.deploy("alice-hidden", environment={"variables": {"SAID": "never-shown"}})
    service, bucket = "/system/services/alice-hidden", "/system/buckets/alice-hidden"
    asked = [
        *(("GET", f"{service}{part}") for part in ("", "/deployment", "/deployment/logs", "/auth")),
        *(("POST", f"{service}/{action}") for action in ("start", "stop", "restart")),
        *(("GET", f"/system/{part}/alice-hidden") for part in ("logs", "federation", "metrics")),
        *((method, "/system/federation/alice-hidden") for method in ("POST", "PUT", "DELETE")),
        ("DELETE", "/system/logs/alice-hidden"),
        ("GET", bucket),
        ("DELETE", bucket),
        ("POST", f"{bucket}/presign"),
        ("GET", f"{service}/exposed/"),
        ("GET", f"/system/quotas/user/{alice.uid}"),
        ("PUT", f"/system/quotas/user/{alice.uid}"),
    ]
    for method, path in asked:
        document = {"object_key": "in/a", "operation": "upload"}
        answer = bob.ask(method, path, json=document if method != "GET" else None)
        assert answer.status_code in (401, 403, 404), (method, path, answer.status_code, answer.text)
        assert "never-shown" not in answer.text
        assert "token" not in answer.text or answer.status_code == 401
    for path in ("/system/services", "/system/buckets", "/system/metrics", "/system/metrics/breakdown"):
        assert "alice-hidden" not in bob.get(path).text, path
    change = {"bucket_name": "alice-hidden", "visibility": "public", "allowed_users": []}
    assert bob.ask("PUT", "/system/buckets", json=change).status_code == 403
    assert bob.ask("PUT", "/system/config", json={"allowed_image_repositories": ["x"]}).status_code == 401
    assert alice.get(service).json()["environment"]["variables"] == {"SAID": "never-shown"}


def test_a_user_names_only_virtual_organisations_that_they_are_in(cluster: Cluster, alice: Person) -> None:
    assert alice.deploy("alice-vo", 400, vo="vo.of-others.eu") == "this user isn't enrrolled on the vo: vo.of-others.eu"
    alice.deploy("alice-vo", vo=GROUP)
    alice.deploy("alice-vo", 400, change=True, vo="vo.of-others.eu")
    assert alice.get("/system/services/alice-vo").json()["vo"] == GROUP
    cluster.deploy("admins-vo", vo="vo.of-others.eu")


def test_a_restricted_service_is_for_those_it_names(alice: Person, bob: Person) -> None:
    alice.deploy("alice-restricted", visibility="restricted", allowed_users=[])
    assert "alice-restricted" not in bob.services()
    alice.deploy("alice-restricted", 204, change=True, visibility="restricted", allowed_users=[bob.uid])
    assert "alice-restricted" in bob.services()
    answer = bob.ask("POST", "/run/alice-restricted", data=base64.b64encode(b"shared"))
    assert (answer.status_code, base64.b64decode(answer.text)) == (200, b"shared")
    bob.deploy("alice-restricted", 403, change=True)
    alice.deploy("alice-restricted", 204, change=True)
    assert "alice-restricted" not in bob.services()
    assert bob.ask("POST", "/run/alice-restricted", data="eA==").status_code == 404


def test_of_a_shared_service_everybody_sees_the_jobs_that_are_theirs(
    cluster: Cluster, alice: Person, bob: Person
) -> None:
    alice.deploy("alice-public", visibility="public", script=f'echo "seen by $OSCAR_SERVICE_NAME"; {COPY}')
    alice.s3.put_object(Bucket="alice-public", Key="in/alices", Body=b"a")
    bob.s3.put_object(Bucket="alice-public", Key="in/bobs", Body=b"b")
    called = bob.ask("POST", "/job/alice-public", data="eA==").headers["X-Dioscar-Job"]
    cluster.put("alice-public", "in/admins", b"c")
    all_jobs = {job["id"] for job in ended(alice, "alice-public", 4)}
    assert all_jobs == {job["id"] for job in cluster.jobs(service="alice-public")}
    assert {job["key"] for job in bob.jobs()} == {"in/bobs", ""}
    bobs = {job["id"] for job in bob.jobs()}
    assert called in bobs
    assert set(bob.get("/system/logs/alice-public").json()["jobs"]) == bobs
    assert set(alice.get("/system/logs/alice-public").json()["jobs"]) == all_jobs
    for job in all_jobs:
        mine = job in bobs
        for path in (f"/system/logs/alice-public/{job}", f"/dioscar/v1/jobs/{job}", f"/dioscar/v1/jobs/{job}/log"):
            assert bob.get(path).status_code == (200 if mine else 404)
            assert alice.get(path).status_code == 200
        for action in ("cancel", "replay"):
            if not mine:
                assert bob.ask("POST", f"/dioscar/v1/jobs/{job}/{action}").status_code == 404
        if not mine:
            assert bob.ask("DELETE", f"/system/logs/alice-public/{job}").status_code == 404
    assert bob.ask("DELETE", "/system/logs/alice-public?all=true").status_code == 204
    assert bob.jobs(service="alice-public") == []
    assert {job["id"] for job in alice.jobs(service="alice-public")} == all_jobs - bobs


def test_tokens_of_services_go_on_as_before(cluster: Cluster, alice: Person) -> None:
    alice.deploy("alice-token")
    token = alice.get("/system/services/alice-token").json()["token"]
    assert base64.b64decode(cluster.invoke("run", "alice-token", b"eA==", token).text) == b"x"
    assert cluster.invoke("run", "alice-token", b"eA==", "0" * 64).status_code == 401
    basic = cluster.http.post(cluster.url("/run/alice-token"), data=b"eA==")
    assert basic.status_code == 401


@pytest.mark.parametrize("way", ["run", "job"])
def test_a_token_that_is_refused_calls_nothing(cluster: Cluster, alice: Person, issuer: TestIssuer, way: str) -> None:
    alice.deploy(f"refused-{way}", visibility="public")
    for token in (
        issuer.token("eve", exp=1),
        issuer.token("eve", group_membership=["x"]),
        alice.token()[:-6] + "AAAAAA",
    ):
        answer = cluster.invoke(way, f"refused-{way}", b"eA==", token)
        assert answer.status_code == 401
        assert len(answer.text) > 10
    assert cluster.jobs(service=f"refused-{way}") == []


def test_a_service_reaches_only_what_its_owner_may(cluster: Cluster, alice: Person, bob: Person) -> None:
    """By every way in which an engine reads and writes for a function."""
    bob.deploy("bob-secret", script="true")
    bob.s3.put_object(Bucket="bob-secret", Key="data/secret", Body=b"bob's")
    elsewhere = [{"storage_provider": "minio.default", "path": "bob-secret/in"}]
    assert "not shared with you" in alice.deploy("alice-spy", 403, input=elsewhere)
    assert "not shared with you" in alice.deploy("alice-spy", 403, output=elsewhere)
    assert "alice-spy" not in alice.services()
    variables = {"DIOSCAR_FUNCTION": "contract.copy", "FORWARD": "* -> bob-secret/in"}
    alice.deploy("alice-spy", script=FUNCTION_SCRIPT, environment={"variables": variables})
    before = len(cluster.jobs(service="bob-secret"))
    alice.s3.put_object(Bucket="alice-spy", Key="in/forwarded", Body=b"x")
    (job,) = ended(alice, "alice-spy")
    assert (job["state"], "not shared" in job["reason"]) == ("Dead", True), job
    forged = {"Records": [{"eventSource": "minio:s3", "eventName": "s3:ObjectCreated:Put"}]}
    forged["Records"][0]["s3"] = {"bucket": {"name": "bob-secret"}, "object": {"key": "data%2Fsecret"}}  # type: ignore[assignment]
    assert alice.ask("POST", "/job/alice-spy", json=forged).status_code == 201
    ended(alice, "alice-spy", 2)
    request = b'{"inputs": [{"bucket": "bob-secret", "key": "data/secret"}]}'
    alice.s3.put_object(Bucket="alice-spy", Key="in/request.json", Body=request)
    listing = b'{"inputs": [{"select": {"bucket": "bob-secret", "prefix": ""}}]}'
    alice.s3.put_object(Bucket="alice-spy", Key="in/select.json", Body=listing)
    for job in ended(alice, "alice-spy", 4):
        assert (job["state"], "not shared" in job["reason"]) == ("Dead", True), job
    assert len(cluster.jobs(service="bob-secret")) == before


def test_a_bucket_of_another_minio_is_not_of_the_user_s_quota(
    cluster: Cluster, issuer: TestIssuer, alice: Person
) -> None:
    carol = Person(cluster, issuer, "carol-with-one-bucket@example.org")
    try:
        quota = cluster.url(f"/system/quotas/user/{carol.uid}")
        assert cluster.http.put(quota, json={"minio": {"buckets": "1"}}).ok
        far = {"minio": {"far": {"endpoint": "https://far.example", "access_key": "a", "secret_key": "b"}}}
        there = [{"storage_provider": "minio.far", "path": "carol-far/out"}]
        carol.deploy("carol-far-away", output=there, storage_providers=far)
        here = [{"storage_provider": "minio.default", "path": "carol-near/out"}]
        assert "MinIO bucket quota exceeded" in carol.deploy("carol-near-by", 403, input=[], output=[*here, *here])
    finally:
        carol.close()


def test_a_service_loses_what_is_no_longer_shared(alice: Person, bob: Person) -> None:
    assert bob.ask("POST", "/system/buckets", json={"bucket_name": "bob-shares", "visibility": "public"}).ok
    shared = [{"storage_provider": "minio.default", "path": "bob-shares/in"}]
    alice.deploy("alice-reads", input=shared)
    bob.s3.put_object(Bucket="bob-shares", Key="in/first", Body=b"1")
    ended(alice, "alice-reads")
    assert bob.ask("PUT", "/system/buckets", json={"bucket_name": "bob-shares", "visibility": "private"}).ok
    bob.s3.put_object(Bucket="bob-shares", Key="in/second", Body=b"2")
    assert [job["key"] for job in alice.jobs(service="alice-reads")] == ["in/first"]


def test_the_next_owner_of_a_name_inherits_nothing(cluster: Cluster, alice: Person, bob: Person) -> None:
    alice.deploy("same-name")
    alice.s3.put_object(Bucket="same-name", Key="in/hers", Body=b"hers")
    (job,) = ended(alice, "same-name")
    assert alice.ask("DELETE", "/system/services/same-name").status_code == 204
    assert "not shared with you" in bob.deploy("same-name", 403), "the bucket with her data is still there"
    other = [{"storage_provider": "minio.default", "path": "same-name-2/in"}]
    bob.deploy("same-name", input=other, output=[])
    assert bob.jobs(service="same-name") == []
    assert bob.get("/system/logs/same-name").json()["jobs"] == {}
    assert bob.get(f"/system/logs/same-name/{job['id']}").status_code == 404
    assert [one["id"] for one in alice.jobs(service="same-name")] == [job["id"]]
    replayed = cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/replay"))
    assert replayed.status_code == 409
    assert "another owner" in replayed.text


def test_a_user_who_takes_a_name_gets_nobodys_data(cluster: Cluster, alice: Person) -> None:
    assert alice.ask("POST", "/system/buckets", json={"bucket_name": "taken-early", "visibility": "private"}).ok
    document = {"name": "taken-early", "image": "x", "script": "true"}
    document["input"] = [{"storage_provider": "minio.default", "path": "taken-early/in"}]  # type: ignore[assignment]
    answer = cluster.http.post(cluster.url("/system/services"), json=document)
    assert answer.status_code == 403
    assert answer.text == f'the bucket "taken-early" belongs to the user {alice.uid}; name another path'


@pytest.mark.parametrize("name", ["keeps", "keeps-under-a-name-of-its-own", "keeps-under-a-name-of-another"])
def test_what_a_job_keeps_stands_below_its_service_and_its_owner(cluster: Cluster, alice: Person, name: str) -> None:
    alice.deploy(name, script='mkdir -p "$DIOSCAR_CHECKPOINT"; echo "$DIOSCAR_CHECKPOINT"; exit 3')
    alice.s3.put_object(Bucket=name, Key="in/a", Body=b"1")
    (job,) = ended(alice, name)
    (kept,) = (cluster.data / "checkpoints").glob(f"*/{job['id']}")
    assert kept.parent.name.startswith(f"{name}~")
    assert alice.ask("DELETE", f"/system/logs/{name}/{job['id']}").status_code == 204
    assert not kept.exists()


def test_a_worker_serves_one_service_of_one_owner(cluster: Cluster, alice: Person, bob: Person) -> None:
    variables = {"DIOSCAR_FUNCTION": "contract.copy"}
    for person in (alice, bob):
        person.deploy("warm-one", script=FUNCTION_SCRIPT, environment={"variables": variables}, input=[], output=[])
        for _ in range(2):
            assert person.ask("POST", "/run/warm-one", data="eA==").status_code == 200
        (worker,) = [one for one in cluster.get("/dioscar/v1/status")["workers"] if one["service"] == "warm-one"]
        assert worker["served"] == 2, "the next owner's first run is a new worker's first"
        assert person.ask("DELETE", "/system/services/warm-one").status_code == 204
        assert not [one for one in cluster.get("/dioscar/v1/status")["workers"] if one["service"] == "warm-one"]


def test_who_is_named_overseer_reads_the_clusters_logs(cluster: Cluster, issuer: TestIssuer, alice: Person) -> None:
    overseer = Person(cluster, issuer, "overseer@example.org")
    try:
        assert overseer.get("/system/logs").status_code == 200
        assert "alice-private" not in overseer.services()
    finally:
        overseer.close()
    assert alice.get("/system/logs").status_code == 403


def test_keys_and_users_outlive_a_restart_and_an_issuer_that_is_away(
    cluster: Cluster, issuer: TestIssuer, alice: Person
) -> None:
    cluster.kill()
    cluster.start()
    issuer.close()
    try:
        again = requests.get(
            cluster.url("/system/config"), headers={"Authorization": f"Bearer {alice.token()}"}, timeout=60
        )
        assert again.status_code == 401
        assert "cannot be asked" in again.text
        assert cluster.get("/system/services")
    finally:
        issuer.reopen()
    back = requests.get(cluster.url("/system/config"), headers={"Authorization": f"Bearer {alice.token()}"}, timeout=60)
    assert back.json()["minio_provider"]["secret_key"] == alice.keys["secret_key"]
