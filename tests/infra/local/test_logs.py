"""The cluster's own log."""

import json
from pathlib import Path

from tests.cluster import running_cluster


def test_a_json_log_has_what_it_is_about_in_fields(tmp_path: Path):
    with running_cluster(tmp_path / "data", "--log-format", "json") as cluster:
        cluster.deploy("logged", script="exit 3", annotations={"dioscar/retries": "0"})
        cluster.put("logged", "in/a b", b"")
        job = cluster.ended("logged")[0]
    lines = [json.loads(line) for line in cluster.log.splitlines()]
    (line,) = [line for line in lines if line.get("job") == job["id"]]
    assert (line["service"], line["key"], line["state"], line["exit_code"]) == ("logged", "in/a b", "Dead", 3)
    assert line["level"] == "WARNING"
    assert line["message"].endswith("is Dead: the script ended with status 3")
    assert all("time" in line for line in lines)


def test_nothing_secret_is_logged(tmp_path: Path):
    with running_cluster(tmp_path / "data") as cluster:
        cluster.deploy("secretive", environment={"secrets": {"KEY": "hush-hush"}}, script="exit 3")
        cluster.put("secretive", "in/a", b"")
        cluster.invoke("job", "secretive", b"")
        cluster.deploy("secretive", script="true")
        cluster.ended("secretive", 2)
        secrets = [cluster.facts["oscar_password"], cluster.facts["minio_secret_key"], cluster.token("secretive")]
    assert not [secret for secret in [*secrets, "hush-hush"] if secret in cluster.log]
