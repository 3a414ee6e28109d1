"""A user's jobs on a node: with the user's own keys, in the user's own namespace, and never as plain processes here."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import Cluster, eventually
from tests.infra.local.interlink.standin import StandIn, standing_in
from tests.infra.local.users.conftest import COPY, Person, boto
from tests.infra.local.users.issuer import GROUP, TestIssuer, running_issuer


@pytest.fixture(scope="module")
def issuer() -> Iterator[TestIssuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def pair(issuer: TestIssuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, StandIn]]:
    folder = tmp_path_factory.mktemp("users")
    with standing_in(folder / "site.sock") as plugin:
        cluster = Cluster(folder / "data")
        cluster.environ = {
            "OIDC_ENABLE": "true",
            "OIDC_ISSUERS": issuer.url,
            "OIDC_GROUPS": GROUP,
            "DIOSCAR_INTERLINK_NODES": json.dumps({"site": {"url": plugin.url}}),
        }
        cluster.start()
        yield cluster, plugin
        cluster.stop()


@pytest.fixture(scope="module")
def alice(pair: tuple[Cluster, StandIn], issuer: TestIssuer) -> Iterator[Person]:
    person = Person(pair[0], issuer, "alice@example.org")
    yield person
    person.close()


def succeeded(person: Person, service: str) -> dict[str, Any]:
    done = eventually(lambda: [job for job in person.jobs(service=service) if job["state"] == "Succeeded"])
    return dict(done[0])


def test_a_users_pod_has_the_users_keys_and_only_with_them_is_an_output_the_jobs(
    pair: tuple[Cluster, StandIn], alice: Person
) -> None:
    cluster, plugin = pair
    alice.deploy("hers", interlink_node_name="site")
    alice.s3.put_object(Bucket="hers", Key="in/a", Body=b"a")
    uid = plugin.pod()
    pod = plugin.pods[uid]
    (secret,) = pod["container"][1]["secrets"]
    keys = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    assert keys == {"accessKey": alice.uid, "secretKey": alice.keys["secret_key"]}
    assert pod["pod"]["metadata"]["namespace"].startswith("oscar-svc-")
    plugin.run(uid)
    made = {"dioscar-job": plugin.env(uid)["JOB_UUID"]}
    with_keys = boto(alice.keys["endpoint"], keys["accessKey"], keys["secretKey"])
    with_keys.put_object(Bucket="hers", Key="out/hers", Body=b"x", Metadata=made)
    with_keys.close()
    root = boto(cluster.facts["s3"], cluster.facts["minio_access_key"], cluster.facts["minio_secret_key"])
    root.put_object(Bucket="hers", Key="out/forged", Body=b"x", Metadata=made)
    root.close()
    plugin.end(uid)
    assert [output["key"] for output in succeeded(alice, "hers")["outputs"]] == ["out/hers"]


def test_a_users_service_on_this_machines_node_runs_in_the_cluster_as_usual(
    pair: tuple[Cluster, StandIn], alice: Person
) -> None:
    alice.deploy("here", interlink_node_name="hpc", script=COPY)
    alice.s3.put_object(Bucket="here", Key="in/a", Body=b"a")
    succeeded(alice, "here")
    assert alice.s3.get_object(Bucket="here", Key="out/a")["Body"].read() == b"a"
    assert not (pair[0].data / "interlink").exists()
