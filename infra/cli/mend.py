"""`cancel`, `replay`, `backup`: what a person does when something went wrong, or before it does."""

from pathlib import Path
from typing import Any

import click

from infra.cli.errors import CliError, Exit
from infra.cli.jobs import STATES, find_job
from infra.cli.objects import split_place
from infra.cli.output import json_option, print_json
from infra.cli.target import cluster_option, target

ENDED = tuple(state for state in STATES if state in ("Succeeded", "Dead", "Cancelled"))


@click.command()
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@cluster_option
@json_option
def cancel(jobs: tuple[str, ...], cluster: str | None, as_json: bool) -> None:
    """End jobs that wait or run."""
    there = target(cluster)
    found = [find_job(there, job) for job in jobs]
    ended = {job["id"]: there.post(f"/dioscar/v1/jobs/{job['id']}/cancel").json()["cancelled"] for job in found}
    if as_json:
        print_json(ended)
        return
    for name, done in ended.items():
        click.echo(f"{name} {'cancelled' if done else 'had ended before'}")


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--service", metavar="SERVICE", help="All dead jobs of a service.")
@click.option("--state", type=click.Choice(ENDED, case_sensitive=False), help="With --service: those, not the dead.")
@click.option("--objects", metavar="BUCKET/PREFIX", help="New jobs for the objects below a prefix of a mailbox.")
@click.option("--missing", is_flag=True, help="Jobs for what lies in mailboxes and no job ever had.")
@cluster_option
@json_option
def replay(
    jobs: tuple[str, ...],
    service: str | None,
    state: str | None,
    objects: str | None,
    missing: bool,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Run again what has run, or never did."""
    there = target(cluster)
    if jobs and not (service or state or objects or missing):
        names = [find_job(there, job)["id"] for job in jobs]
        count = sum(there.post(f"/dioscar/v1/jobs/{name}/replay").json()["replayed"] for name in names)
    else:
        count = there.post("/dioscar/v1/replay", _wanted(jobs, service, state, objects, missing)).json()["replayed"]
    if as_json:
        print_json({"replayed": count})
    else:
        click.echo(f"{count} job{'' if count == 1 else 's'} put into the queue")


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@cluster_option
@json_option
def backup(folder: Path, cluster: str | None, as_json: bool) -> None:
    """Copy the embedded cluster into a new folder while it runs; `up --data DIR` serves the copy."""
    answer = target(cluster).post("/dioscar/v1/backup", {"to": str(folder.absolute())}).json()
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{folder} holds the cluster as it was just now")


def _wanted(
    jobs: tuple[str, ...], service: str | None, state: str | None, objects: str | None, missing: bool
) -> dict[str, Any]:
    if jobs or bool(service) + bool(objects) > 1 or (state and not service) or (missing and service):
        raise CliError("name jobs, or --service [--state], or --objects [--missing], or --missing", Exit.USAGE)
    if service:
        return {"jobs": {"service": service, **({"state": state} if state else {})}}
    if objects:
        bucket, prefix = split_place(objects)
        return {"objects": {"bucket": bucket, "prefix": prefix, "missing": missing}}
    if missing:
        return {"missing": {}}
    raise CliError("name what to run again: jobs, --service, --objects or --missing", Exit.USAGE)
