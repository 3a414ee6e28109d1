"""`schedule`: what runs by itself: by the clock, by what has arrived, by the age of a model."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.cli.errors import DIOSCAR, CliError, Exit
from infra.cli.jobs import short
from infra.cli.models import opened
from infra.cli.output import ago, human_size, human_time, json_option, print_json, print_table
from infra.cli.shipped import shipped_models
from infra.cli.target import Target, cluster_option, target

if TYPE_CHECKING:
    from events.schedules import Schedule

ROOT = "/dioscar/v1/schedules"
SHIPPED = Path(__file__).parents[2] / "events" / "schedules.yaml"
file_argument = click.argument(
    "files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)


@click.group()
def schedule() -> None:
    """Have services run by themselves: by the clock, or by what has arrived."""


@schedule.command("list")
@click.argument("name", required=False)
@cluster_option
@json_option
def show(name: str | None, cluster: str | None, as_json: bool) -> None:
    """List the schedules; with a NAME, all that is known about it."""
    there = target(cluster)
    if name is not None:
        found = _get(there, name)
        if as_json:
            print_json(found)
        else:
            _print(found)
        return
    listed = _ours(there, "GET", ROOT)["schedules"]
    if as_json:
        print_json(listed)
        return
    columns = ("NAME", "SERVICE", "WHEN", "STATE", "NEXT", "LAST", "LAST JOB", "RESULT", "NOTE")
    empty = f"No schedules yet. {DIOSCAR} schedule apply brings the examples of events/schedules.yaml, all paused."
    print_table(columns, [_row(one) for one in listed], empty=empty)


@schedule.command()
@file_argument
@cluster_option
@json_option
def apply(files: tuple[Path, ...], cluster: str | None, as_json: bool) -> None:
    """Take the schedules of a FILE; the shipped examples (all paused), without."""
    from events.schedule_file import read_file
    from events.schedules import ScheduleError

    try:
        documents = [read_file(path)[0] for path in files or [SHIPPED]]
    except ScheduleError as error:
        raise CliError(str(error), Exit.BAD_INPUT) from None
    schedules: dict[str, Any] = {}
    for path, document in zip(files or [SHIPPED], documents, strict=True):
        for name, fields in document["schedules"].items():
            if name in schedules:
                raise CliError(f"{path}: schedules.{name}: stands in another file too; rename one", Exit.BAD_INPUT)
            schedules[name] = fields
    there = target(cluster)
    answer = _ours(there, "PUT", ROOT, {"schedules": schedules})
    answer["warnings"] += _unknown_models(there, schedules)
    if as_json:
        print_json(answer)
        return
    for name, done in answer["applied"].items():
        click.echo(f"{name} {done}{', paused' if schedules[name].get('paused') and done == 'created' else ''}")
    for warning in answer["warnings"]:
        click.echo("dioscar: " + warning.replace("`dioscar ", f"`{DIOSCAR} "), err=True)


@schedule.command()
@click.argument("name")
@cluster_option
@json_option
def run(name: str, cluster: str | None, as_json: bool) -> None:
    """Run a schedule now, whatever it waits for, also while it is paused."""
    answer = _ours(target(cluster), "POST", f"{ROOT}/{name}/run")
    if as_json:
        print_json(answer)
        return
    for job in answer["jobs"]:
        click.echo(job)
    if answer["jobs"]:
        click.echo(f"Follow it: {DIOSCAR} logs -f {answer['jobs'][-1]}", err=True)


@schedule.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@cluster_option
def pause(names: tuple[str, ...], cluster: str | None) -> None:
    """Let schedules run no more until they are resumed."""
    there = target(cluster)
    for name in names:
        _ours(there, "POST", f"{ROOT}/{name}/pause")
        click.echo(f"{name} paused")


@schedule.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@cluster_option
def resume(names: tuple[str, ...], cluster: str | None) -> None:
    """Let paused schedules run again; what their clock said meanwhile is past."""
    there = target(cluster)
    for name in names:
        found = _ours(there, "POST", f"{ROOT}/{name}/resume")
        following = _next(found)
        if following == "due":  # the age of a model, which the cluster is about to look at
            following = ""
        click.echo(f"{name} resumed{f', next {following}' if following else ''}")


@schedule.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@cluster_option
def delete(names: tuple[str, ...], cluster: str | None) -> None:
    """Forget schedules; the jobs that they have started go on."""
    there = target(cluster)
    for name in names:
        _ours(there, "DELETE", f"{ROOT}/{name}")
        click.echo(f"{name} deleted")


@schedule.command()
@file_argument
@click.option("--namespace", default="oscar", show_default=True, help="Where the manifests are to be applied.")
@click.option(
    "--endpoint", default="http://oscar.oscar:8080", show_default=True, help="OSCAR's URL, as a pod there sees it."
)
@click.option(
    "--s3",
    default="https://minio-service.minio:9000",
    show_default=True,
    help="The object store's URL, as a pod there sees it.",
)
@click.option("--s3-insecure", is_flag=True, help="Do not check the object store's certificate.")
@click.option("--image", metavar="IMAGE", help="The image to run. Default: dioscar-runtime of this version.")
@click.option(
    "--check", metavar="CRON", default="*/5 * * * *", show_default=True, help="When to look at what has arrived."
)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write them here.")
def render(files: tuple[Path, ...], output: Path | None, **options: Any) -> None:
    """Print the schedules of a FILE as manifests for OSCAR on Kubernetes."""
    from events.schedule_file import read_file
    from events.schedules import ScheduleError
    from infra.cluster.schedules import Site, manifests, text

    options["image"] = options["image"] or _image()
    schedules = []
    try:
        for path in files or [SHIPPED]:
            document, found = read_file(path)
            schedules += [(one, document["schedules"][one.name]) for one in found]
        made = text(manifests(schedules, Site(**options)), [one for one, _ in schedules], Site(**options))
    except ScheduleError as error:
        raise CliError(str(error), Exit.BAD_INPUT) from None
    for one, _ in schedules:
        if one.at is not None and one.at <= time.time():
            click.echo(f"note: {one.name}: its time is past; its Job {_late(one)}", err=True)
    if output is None:
        click.echo(made, nl=False)
    else:
        output.write_text(made, encoding="utf-8")
        click.echo(f"kubectl apply -f {output}", err=True)


def _unknown_models(there: Target, schedules: dict[str, Any]) -> list[str]:
    """A sentence for each schedule by the age of a model that is neither in its registry nor shipped."""
    from fdl.names import did_you_mean
    from layers.learning.registry import BUCKET

    found = []
    for name, fields in schedules.items():
        wanted = fields.get("model")
        if not wanted or wanted["name"] in shipped_models():
            continue
        try:
            with opened(there, wanted.get("registry", BUCKET)) as registry:
                known = {*registry.models(), *shipped_models()}
        except CliError as error:
            found.append(f"{name}: {error}")
            continue
        if wanted["name"] not in known:
            close = did_you_mean(wanted["name"], sorted(known))
            mend = f"; did you mean {close}?" if close else ""
            found.append(f"{name}: there is no model {wanted['name']} now{mend}")
    return found


def _late(schedule: "Schedule") -> str:
    return "will do nothing" if schedule.missed == "skip" else "will run as soon as it is applied"


def _image() -> str:
    from importlib.metadata import version

    return f"ghcr.io/dioscar/dioscar-runtime:{version('dioscar')}"


def _get(there: Target, name: str) -> dict[str, Any]:
    return dict(_ours(there, "GET", f"{ROOT}/{name}"))


def _ours(there: Target, method: str, path: str, body: Any = None) -> Any:
    """What the embedded cluster answers. Raises CliError, also for a cluster that has no schedules of its own."""
    try:
        if method == "GET":
            reply = there.get(path)
        elif method == "PUT":
            reply = there.put(path, body)
        else:
            reply = there.post(path) if method == "POST" else there.delete(path)
    except CliError as error:
        if error.status == Exit.NOT_FOUND and "there is no schedule" not in str(error):
            hint = f"has no schedules of its own; {DIOSCAR} schedule render FILE makes manifests for it"
            raise CliError(f"{there.url}: {hint}", Exit.USAGE) from None
        raise
    return reply.json() if reply.content else None


def _row(found: dict[str, Any]) -> tuple[Any, ...]:
    ran = found["ran"]
    last = "-" if ran is None else f"{ago(ran)} ago"
    return (
        found["name"],
        found["service"],
        found["when"],
        found["state"],
        _next(found) or "-",
        last,
        short({"id": found["job"]}) if found["job"] else "-",
        found["job_state"] or "-",
        found["note"],
    )


def _next(found: dict[str, Any]) -> str:
    """When a schedule runs next, or how far it is from that."""
    arrived = found["arrived"]
    if found["state"] == "active" and arrived is not None:
        return f"{arrived['objects']} so far, {human_size(arrived['bytes'])}"
    if found["next"] is None:
        return ""
    left = found["next"] - time.time()
    return f"in {human_time(left)}" if left > 0 else "due"


def _print(found: dict[str, Any]) -> None:
    facts = {
        "service": found["service"],
        "when": found["when"],
        "state": found["state"],
        "next": _moment(found["next"]),
        "last": _moment(found["ran"]),
        "due then": _moment(found["last"]) if found["last"] != found["ran"] else "",
        "arrived": _next(found) if found["arrived"] is not None else "",
        "job": found["job"],
        "job state": found["job_state"],
        "request": found["request"],
        "note": found["note"],
    }
    click.echo(found["name"])
    for name, value in facts.items():
        if value:
            click.echo(f"  {name:10} {value}")


def _moment(when: float | None) -> str:
    return "" if when is None else time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(when))
