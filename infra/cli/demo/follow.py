"""Put an object into a service's mailbox and follow what comes of it."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from infra.cli.errors import DIOSCAR, CliError, Exit
from infra.cli.jobs import OPEN
from infra.cli.target import Target, store_errors

POLL_S = 0.1
Watch = Callable[[Mapping[str, Any]], None]


def job_of(there: Target, service: str, bucket: str, key: str) -> str:
    """The job that an object just put there has triggered; object and job are one commit, so it exists."""
    found = there.get("/dioscar/v1/jobs", service=service, bucket=bucket, key=key, limit=1).json()["jobs"]
    if not found:
        raise CliError(f"{bucket}/{key} has triggered no job; is {service} deployed? {DIOSCAR} plan fdl/pulsar.yaml")
    return str(found[0]["id"])


def wait(there: Target, job: str, watch: Watch) -> dict[str, Any]:
    """Wait until a job has succeeded, telling `watch` of each look at it. Raises CliError with the job's reason."""
    while True:
        facts: dict[str, Any] = there.get(f"/dioscar/v1/jobs/{job}").json()
        watch(facts)
        if facts["state"] == "Succeeded":
            return facts
        if facts["state"] not in OPEN:
            bad_input = facts["exit_code"] == Exit.BAD_INPUT
            reason = facts["reason"] or f"its log says more: {DIOSCAR} logs {job}"
            status = Exit.BAD_INPUT if bad_input else Exit.FAILED
            raise CliError(f"{facts['service']}: {reason}", status)
        time.sleep(POLL_S)


def triggered(job: Mapping[str, Any], service: str) -> str:
    """The job of `service` that another job's forward has started."""
    for name in job["triggered"]:
        if str(name).startswith(service):
            return str(name)
    raise CliError(f"{job['id']} forwarded nothing to {service}; look at it with: {DIOSCAR} jobs {job['id']}")


def fetch_outputs(there: Target, job: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Download what a job wrote into its service's bucket, but for its provenance record."""
    for output in job["outputs"]:
        bucket, name = output["bucket"], output["key"].removeprefix("out/")
        if bucket != job["service"] or name.startswith("_runs/"):
            continue
        path = folder / Path(name).name
        with store_errors(f"{bucket}/{output['key']}"):
            there.store.fget_object(bucket, output["key"], str(path))
        yield path
