"""`cancel` and `backup`: what a person does when something goes wrong, or before it does."""

from pathlib import Path

import click

from infra.cli.jobs import find_job
from infra.cli.output import json_option, print_json
from infra.cli.target import cluster_option, target


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
