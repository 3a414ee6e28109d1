"""`replay`: run again what failed, what never ran, and what has left no output."""

import time
from datetime import UTC, datetime
from typing import Any

import click

from infra.cli import reconcile
from infra.cli.errors import DIOSCAR, CliError, Exit
from infra.cli.jobs import STATES, find_job
from infra.cli.objects import split_place
from infra.cli.output import ago, human_size, json_option, print_json, print_table
from infra.cli.target import Target, cluster_option, target

ENDED = tuple(state for state in STATES if state in ("Succeeded", "Dead", "Cancelled"))
COLUMNS = ("SERVICE", "INPUT", ">SIZE", ">AGE", "LAST JOB")
WAYS = (
    "name what to run again: jobs, or --service, --since or --until [--state], or --objects [--missing], or --missing, "
    "or --without-output [--service] [--older] [--yes]"
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def moment(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """A point in time in Unix seconds: ISO 8601, or how long ago (`90m`)."""
    if text is None:
        return None
    if text[:-1].isdecimal() and len(text) < 8 and text[-1] in _UNITS:
        return time.time() - int(text[:-1]) * _UNITS[text[-1]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        mend = "write 2026-01-31T12:00, or 90m, 12h, 3d for so long ago"
        raise click.BadParameter(f'"{text}" is no time; {mend}', context, parameter) from None


@click.command()
@click.argument("jobs", metavar="[JOB]...", nargs=-1)
@click.option("--service", metavar="SERVICE", help="All dead jobs of a service.")
@click.option(
    "--state",
    type=click.Choice(ENDED, case_sensitive=False),
    help="With these three: those that ended so, not the dead.",
)
@click.option(
    "--since", metavar="TIME", callback=moment, help="Dead jobs made since: 2026-01-31T12:00, or 90m, 12h, 3d ago."
)
@click.option("--until", metavar="TIME", callback=moment, help="Dead jobs made until then.")
@click.option("--objects", metavar="BUCKET/PREFIX", help="New jobs for the objects below a prefix of a mailbox.")
@click.option("--missing", is_flag=True, help="Jobs for what lies in mailboxes and no job ever had.")
@click.option("--without-output", is_flag=True, help="Show the inputs that have no record of a run; on any OSCAR.")
@click.option("--older", metavar="TIME", callback=moment, default="0s", help="With --without-output: put there before.")
@click.option("--yes", is_flag=True, help="With --without-output: run them.")
@cluster_option
@json_option
def replay(
    jobs: tuple[str, ...],
    service: str | None,
    state: str | None,
    since: float | None,
    until: float | None,
    objects: str | None,
    missing: bool,
    without_output: bool,
    older: float,
    yes: bool,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Run again what has run, or never did, or has left nothing."""
    span = {name: value for name, value in (("state", state), ("since", since), ("until", until)) if value is not None}
    dead = not without_output and (bool(service) or since is not None or until is not None)
    if sum([bool(jobs), bool(objects) or missing, dead, without_output]) != 1 or (span and not dead):
        raise CliError(WAYS, Exit.USAGE)
    if yes and not without_output:
        raise CliError("--yes belongs to --without-output", Exit.USAGE)
    there = target(cluster)
    if without_output:
        _without_output(there, service, older, yes=yes, as_json=as_json)
        return
    if service is not None:
        there.service(service)
    if not reconcile.has_queue(there):
        count = _elsewhere(there, objects)
    elif jobs:
        names = [find_job(there, job)["id"] for job in jobs]
        count = sum(there.post(f"/dioscar/v1/jobs/{name}/replay").json()["replayed"] for name in names)
    else:
        wanted: dict[str, Any] = {"jobs": {**span, **({"service": service} if service else {})}}
        if objects:
            bucket, prefix = split_place(objects)
            wanted = {"objects": {"bucket": bucket, "prefix": prefix, "missing": missing}}
        elif missing:
            wanted = {"missing": {}}
        count = there.post("/dioscar/v1/replay", wanted).json()["replayed"]
    if as_json:
        print_json({"replayed": count})
    else:
        click.echo(_queued(count))


def _elsewhere(there: Target, objects: str | None) -> int:
    """What can be done on a cluster that keeps no queue: post the events of objects."""
    if objects is None:
        raise CliError(
            f"{there.url}: keeps nothing of jobs that have failed, as every OSCAR but the embedded one; "
            f"{DIOSCAR} replay --without-output shows what is to be run again, and --objects runs what you name"
        )
    bucket, prefix = split_place(objects)
    found = reconcile.below(there, reconcile.services_of(there, None), bucket, prefix)
    return reconcile.run(there, found)


def _without_output(there: Target, service: str | None, older: float, *, yes: bool, as_json: bool) -> None:
    services = reconcile.services_of(there, service)
    silent = [one.name for one in services if not reconcile.keeps_records(one)]
    waiting = list(reconcile.find(there, services, datetime.fromtimestamp(older, UTC)))
    count = reconcile.run(there, waiting) if yes else 0
    if as_json:
        rows = [
            {
                "service": one.service,
                "bucket": one.bucket,
                "key": one.key,
                "size": one.size,
                "modified": one.modified.timestamp(),
                "job": one.note or None,
            }
            for one in waiting
        ]
        print_json({"inputs": rows, "replayed": count, "without_records": silent})
        return
    print_table(
        COLUMNS,
        [
            (one.service, f"{one.bucket}/{one.key}", human_size(one.size), ago(one.modified.timestamp()), one.note)
            for one in waiting
        ],
        empty="Every input has left a record.",
    )
    if yes:
        click.echo(_queued(count))
    elif waiting:
        click.echo("Run them: the same with --yes", err=True)
    if silent:
        click.echo(f"Not compared, for they are no functions that keep records: {', '.join(silent)}", err=True)


def _queued(count: int) -> str:
    return f"{count} job{'' if count == 1 else 's'} put into the queue"
