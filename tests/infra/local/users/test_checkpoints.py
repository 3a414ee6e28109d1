"""What a running training has saved, when its service is changed, goes, or becomes somebody else's."""

import json
from pathlib import Path
from typing import Any

from tests.cluster import Cluster, eventually, running_cluster
from tests.infra.local.users.conftest import Person

STEPS = """
saved=$DIOSCAR_CHECKPOINT/steps; mkdir -p "$DIOSCAR_CHECKPOINT"; echo "$OSCAR_SERVICE_NAME $SAYS" >> "$saved"
cp "$saved" "$TMP_OUTPUT_DIR/steps"
if [ "$(wc -l < "$saved")" -lt 2 ]; then trap 'exit 75' TERM; echo waits; sleep 600 & wait; fi
"""


def waiting(look: Any, service: str) -> dict[str, Any]:
    """The job of a service that has saved its first step."""

    def found() -> dict[str, Any] | None:
        return next((job for job in look(service=service) if job["state"] == "Running"), None)

    return eventually(found, what=f"a running job of {service}")


def saved(cluster: Cluster, job: dict[str, Any]) -> str:
    kept = list((cluster.data / "checkpoints").glob(f"*/{job['id']}/steps"))
    return kept[0].read_text() if kept else ""


def test_an_update_leaves_it_running_and_what_it_saved_to_the_next_attempt(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "data") as cluster:
        cluster.deploy("updated", script=STEPS, variables={"SAYS": "old"})
        cluster.put("updated", "in/a", b"x")
        job = waiting(cluster.jobs, "updated")
        eventually(lambda: saved(cluster, job))
        cluster.deploy("updated", script=STEPS, variables={"SAYS": "new"})
        assert cluster.job(job["id"])["state"] == "Running"
        cluster.kill()
        cluster.start()
        (ended,) = cluster.ended("updated")
        assert (ended["id"], ended["state"]) == (job["id"], "Succeeded")
        assert cluster.read("updated", "out/steps") == b"updated old\nupdated new\n"
        assert not saved(cluster, job)


def test_an_update_leaves_a_worker_to_its_run(cluster: Cluster) -> None:
    """The run ends on the worker that it began on; the next one has the new revision's."""
    cluster.deploy("updated-warm", variables={"DIOSCAR_FUNCTION": "contract.train"})
    cluster.put("updated-warm", "in/a.json", b'{"inputs": [], "steps": 20, "pause_s": 0.1}')
    job = waiting(cluster.jobs, "updated-warm")
    eventually(lambda: cluster.job(job["id"])["progress"])
    cluster.deploy("updated-warm", variables={"DIOSCAR_FUNCTION": "contract.train", "SAYS": "new"})
    assert cluster.job(job["id"])["state"] == "Running"
    (ended,) = cluster.ended("updated-warm")
    assert (ended["state"], json.loads(cluster.read("updated-warm", "out/a.json.model"))["starts"]) == ("Succeeded", 1)
    workers = cluster.get("/dioscar/v1/status")["workers"]
    assert [one for one in workers if one["service"] == "updated-warm"] == []


def test_it_goes_on_where_its_owner_deploys_the_service_again(cluster: Cluster, alice: Person, bob: Person) -> None:
    """And nowhere else: the next owner of the name has another folder, and cannot have the job run."""
    alice.deploy("changes-hands", script=STEPS, environment={"variables": {"SAYS": "hers"}}, output=[])
    alice.s3.put_object(Bucket="changes-hands", Key="in/a", Body=b"x")
    job = waiting(alice.jobs, "changes-hands")
    eventually(lambda: saved(cluster, job))
    assert alice.ask("DELETE", "/system/services/changes-hands").status_code == 204
    eventually(lambda: cluster.job(job["id"])["state"] == "Cancelled")
    eventually(lambda: not list(cluster.data.glob(f"run/*/{job['id']}")), what="the end of the run")
    assert saved(cluster, job) == "changes-hands hers\n"
    bobs = [{"storage_provider": "minio.default", "path": "changed-hands/in"}]
    bob.deploy("changes-hands", script=STEPS, input=bobs, output=[], environment={"variables": {"SAYS": "his"}})
    refused = cluster.http.post(cluster.url(f"/dioscar/v1/jobs/{job['id']}/replay"))
    assert (refused.status_code, "another owner" in refused.text) == (409, True)
    bob.s3.put_object(Bucket="changed-hands", Key="in/a", Body=b"x")
    his = waiting(bob.jobs, "changes-hands")
    eventually(lambda: saved(cluster, his))
    assert saved(cluster, his) == "changes-hands his\n"
    assert bob.ask("DELETE", "/system/services/changes-hands").status_code == 204
    alice.deploy("changes-hands", script=STEPS, environment={"variables": {"SAYS": "again"}}, output=[])
    assert alice.ask("POST", f"/dioscar/v1/jobs/{job['id']}/replay").ok
    eventually(lambda: cluster.job(job["id"])["state"] == "Succeeded", what=str(cluster.job(job["id"])))
    eventually(lambda: not saved(cluster, job), what="the end of what was saved")
