"""`invoke`, `jobs`, `logs`: work that services do."""

import base64
import binascii
import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from infra.cli.errors import DIOSCAR, CliError, Exit
from infra.cli.output import ago, console, human_size, human_time, json_option, make_table, print_json, print_table
from infra.cli.target import Target, cluster_option, target

STATES = ("Pending", "Running", "Retrying", "Succeeded", "Failed", "Dead", "Cancelled")
COLUMNS = ("JOB", "STATE", ">TRY", ">AGE", ">TOOK", "INPUT", "NOTE")
WATCH_S = 1.0
OPEN = ("Pending", "Running", "Retrying")
_COLOURS = {"Succeeded": "green", "Running": "cyan", "Retrying": "yellow", "Failed": "red", "Dead": "red"}
_UUID = re.compile(r"-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@click.command()
@click.argument("service")
@click.argument("file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option("--async", "in_background", is_flag=True, help="Leave it work and print the job.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the reply here.")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(min=0.1), default=300.0, show_default=True)
@cluster_option
@json_option
def invoke(
    service: str,
    file: Path | None,
    in_background: bool,
    output: Path | None,
    timeout: float,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Call a service with a file (- is standard input), and print its reply."""
    there = target(cluster)
    body = b""
    if file is not None:
        body = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    status, headers, text = _call(there, service, body, "job" if in_background else "run", timeout)
    if status >= 400:
        raise _failure(service, status, text)
    if in_background:
        job = headers.get("X-Dioscar-Job", "")
        if as_json:
            print_json({"service": service, "job": job or None})
        else:
            click.echo(job or f"{service} has the job.")
            if job:
                click.echo(f"Follow it: {DIOSCAR} logs -f {job}", err=True)
        return
    reply = decode_reply(text)
    if is_failure(reply):  # a cluster of OSCAR's own answers 200 whatever became of the script
        raise _failure(service, status, reply.decode())
    if output is not None:
        output.write_bytes(reply)
        click.echo(f"{output} ({len(reply)} bytes)", err=True)
    else:
        sys.stdout.buffer.write(reply)
        sys.stdout.buffer.flush()


@click.command()
@click.argument("job", metavar="[[show] JOB]", nargs=-1)
@click.option("--service", metavar="SERVICE", help="Only this service's.")
@click.option(
    "--state", type=click.Choice(STATES, case_sensitive=False), help="Only those in this state; Failed means Dead."
)
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, newest first.")
@click.option("--watch", is_flag=True, help="Keep the list up to date, until Ctrl-C.")
@cluster_option
@json_option
def jobs(
    job: tuple[str, ...],
    service: str | None,
    state: str | None,
    limit: int,
    watch: bool,
    cluster: str | None,
    as_json: bool,
) -> None:
    """List jobs, newest first; with a JOB, all that is known about it."""
    names = job[1:] if job[:1] == ("show",) else job
    if len(names) > 1 or (job and not names):
        raise click.UsageError("write one JOB, or none for the list.")
    there = target(cluster)
    if names:
        _show(find_job(there, names[0]), as_json=as_json)
        return
    if watch:
        _watch(lambda: list_jobs(there, service=service, state=state, limit=limit))
        return
    found = list_jobs(there, service=service, state=state, limit=limit)
    if as_json:
        print_json(found)
        return
    print_table(COLUMNS, _rows(found), empty="No jobs" + (" like that." if service or state else " yet."))


def _rows(found: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
    now = time.time()  # one for all: a job that has just started is not older than itself
    return [
        (
            short(entry),
            _coloured(entry["state"]),
            f"{entry.get('attempt', '')}/{entry['max_attempts']}" if entry.get("max_attempts") else "",
            ago(entry["created"], now),
            human_time(duration_s(entry, now)),
            _input(entry),
            _note(entry),
        )
        for entry in found
    ]


def _watch(look: Callable[[], list[dict[str, Any]]]) -> None:
    """The list as it is now, on a terminal, until somebody has seen enough."""
    from rich.live import Live

    screen = console()
    if not screen.is_terminal:
        raise click.UsageError("--watch needs a terminal; for programs there is --json.")
    with Live(console=screen, auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while True:
            live.update(make_table(COLUMNS, _rows(look()), screen.width), refresh=True)
            time.sleep(WATCH_S)


@click.command()
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Until the job has ended; exits with its status.")
@cluster_option
def logs(job: str, follow: bool, cluster: str | None) -> None:
    """Print a job's log."""
    there = target(cluster)
    try:
        found = find_job(there, job)
    except CliError as error:
        if error.status != Exit.NOT_FOUND or not _UUID.search(job):
            raise
        service = _UUID.sub("", job)  # a cluster without our routes: OSCAR's own
        click.echo(there.get(f"/system/logs/{service}/{job}").text, nl=False)
        return
    out = sys.stdout.buffer
    path = f"/dioscar/v1/jobs/{found['id']}/log"
    size = 0
    for chunk in there.get(path, stream=True, follow=int(follow)).iter_content(None):
        size += out.write(chunk)
        out.flush()
    if not size and not follow:
        why = f": {found['reason']}" if found.get("reason") else ""
        click.echo(f"{found['id']} has no log; it is {found['state']}{why}", err=True)
    if follow:
        ended = find_job(there, str(found["id"]))
        if ended["state"] != "Succeeded":
            bad_input = ended.get("exit_code") == Exit.BAD_INPUT
            status = Exit.BAD_INPUT if bad_input else Exit.FAILED
            raise CliError(f"{ended['id']} is {ended['state']}: {ended.get('reason') or 'no reason given'}", status)


def list_jobs(there: Target, *, service: str | None = None, limit: int = 100, state: str | None = None) -> list[Any]:
    """The newest jobs as the cluster tells them; of a cluster that has OSCAR's routes only, those of one service.

    Failed and Dead are the same here: a job of ours rests as Dead, one of OSCAR's as Failed.
    """
    try:
        ours = "Dead" if state == "Failed" else state
        found = there.get("/dioscar/v1/jobs", service=service, state=ours, limit=limit).json()["jobs"]
        return list(found)
    except CliError as error:
        if error.status != Exit.NOT_FOUND:
            raise
    if service is None:
        raise CliError(f"{there.url}: lists the jobs of one service at a time; add --service NAME", Exit.USAGE)
    listed = there.get(f"/system/logs/{service}").json()["jobs"]
    jobs = [_as_ours(name, service, facts) for name, facts in listed.items()]
    theirs = "Failed" if state == "Dead" else state
    jobs = [job for job in jobs if theirs in (None, job["state"])]
    return sorted(jobs, key=lambda job: job["created"] or 0, reverse=True)[:limit]


def find_job(there: Target, name: str) -> dict[str, Any]:
    """A job by its identifier, or by a part of it that no other recent job has."""
    try:
        return dict(there.get(f"/dioscar/v1/jobs/{name}").json())
    except CliError as error:
        if error.status != Exit.NOT_FOUND:
            raise
        listed = there.get("/dioscar/v1/jobs", limit=1000).json()["jobs"]
        matching = [job["id"] for job in listed if name in job["id"]]
        if len(matching) != 1:
            what = f"{len(matching)} jobs have {name} in their name" if matching else f"there is no job {name}"
            raise CliError(f"{what}; {DIOSCAR} jobs lists them", Exit.NOT_FOUND) from None
        return dict(there.get(f"/dioscar/v1/jobs/{matching[0]}").json())


def duration_s(job: dict[str, Any], now: float | None = None) -> float | None:
    """How long a job worked, or has been working."""
    if not job["started"]:
        return None
    return float((job["finished"] or now or time.time()) - job["started"])


def short(job: dict[str, Any]) -> str:
    """The beginning of a job's identifier, which is enough to find it again: the service and eight digits.

    >>> short({"id": "pulsar-clean-0b8f1c52-8d0a-4f6e-9d53-1c2d3e4f5a6b"})
    'pulsar-clean-0b8f1c52'
    """
    name = str(job["id"])
    found = _UUID.search(name)
    return name if found is None else name[: found.start() + 9]


def decode_reply(text: str) -> bytes:
    """A synchronous reply: the base64 of the function's one file, or the text that it is."""
    try:
        return base64.b64decode("".join(text.splitlines()), validate=True)
    except (binascii.Error, ValueError):
        return text.encode()


def is_failure(reply: bytes) -> bool:
    """Whether a reply is a function's error, `{"error": {"type", "message"}}`, and nothing else."""
    if not reply.startswith(b'{"error"'):
        return False
    try:
        value = json.loads(reply)
        return list(value) == ["error"] and {"type", "message"} <= value["error"].keys()
    except (ValueError, AttributeError):
        return False


def _call(there: Target, service: str, body: bytes, route: str, timeout_s: float) -> tuple[int, Any, str]:
    """POST a body to /run or /job with the service's token, as OSCAR wants it."""
    import requests

    from fdl.apply import sentences

    endpoint = there.endpoint
    token = endpoint.oidc_token or str(there.service(service)["token"])
    with sentences(there.url):
        reply = requests.post(
            f"{there.url}/{route}/{service}",
            data=base64.b64encode(body),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            verify=endpoint.verify,
            timeout=(10, timeout_s),
        )
    return reply.status_code, reply.headers, reply.text


def _failure(service: str, status: int, text: str) -> CliError:
    try:
        error = json.loads(text)["error"]
        message, bad_input = error["message"] or error["type"], error["type"] == "InputError"
    except (ValueError, KeyError, TypeError):
        message, bad_input = " ".join(text.split()) or f"HTTP status {status}", False
    # the functions' sentences are for every caller; here is one that has a command
    message = message.removeprefix(f"{service}: ")
    message = message.replace(f"POST /job/{service}", f"run {DIOSCAR} invoke {service} FILE --async")
    return CliError(f"{service}: {message}", Exit.BAD_INPUT if bad_input else Exit.FAILED)


def _as_ours(name: str, service: str, facts: dict[str, Any]) -> dict[str, Any]:
    def moment(field: str) -> float | None:
        from datetime import datetime

        return datetime.fromisoformat(facts[field]).timestamp() if facts.get(field) else None

    created, started, finished = (moment(field) for field in ("creation_time", "start_time", "finish_time"))
    return {
        "id": name,
        "service": service,
        "state": facts["status"],
        "created": created,
        "started": started,
        "finished": finished,
    }


def _coloured(state: str) -> Any:
    from rich.text import Text

    return Text(state, style=_COLOURS.get(state, ""))


def _input(job: dict[str, Any]) -> str:
    if job.get("bucket"):
        return f"{job['bucket']}/{job['key']}"
    return "(direct call)" if "bucket" in job else ""  # a cluster of OSCAR's own does not tell


def _note(job: dict[str, Any]) -> str:
    done = job.get("progress")
    if job["state"] == "Running" and done and done["total"]:
        return f"{100 * done['done'] / done['total']:.0f} %"
    return "" if job["state"] == "Succeeded" else " ".join((job.get("reason") or "").split())


def _show(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(job)
        return
    out, now = console(), time.time()
    out.print(job["id"], _coloured(job["state"]))
    facts = {
        "service": job["service"],
        "input": f"{job['bucket']}/{job['key']}" if job.get("bucket") else "a direct call",
        "event": _event(job),
        "node": job.get("node", ""),
        "attempt": f"{job['attempt']} of {job['max_attempts']}",
        "age": ago(job["created"], now),
        "took": human_time(duration_s(job, now)),
        "exit code": job["exit_code"],
        "reason": job["reason"],
        "triggered": ", ".join(job["triggered"]),
        "log": "" if job["state"] == "Pending" else f"{DIOSCAR} logs {short(job)}",
    }
    for name, value in facts.items():
        if value not in (None, ""):
            click.echo(f"  {name:10} {value}")
    for output in job["outputs"]:
        click.echo(f"  {'output':10} {output['bucket']}/{output['key']} ({output['size']} bytes)")
    for line in _history(job):
        click.echo(f"  {line}")


def _event(job: dict[str, Any]) -> str:
    """What made a job, from whom and when; nothing of a cluster that does not tell."""
    if "body_bytes" not in job:
        return ""
    event = job["event"]
    if event is None:
        return f"{human_size(job['body_bytes'])} by /job/{job['service']}"
    try:
        record = event["Records"][0]
        size, sender = record["s3"]["object"].get("size", 0), record["userIdentity"]["principalId"]
        by = f" by {sender}" if sender else ""
        return f"{record['eventName']} at {record['eventTime']}{by}, {human_size(size)}"
    except (LookupError, TypeError, AttributeError):
        return "a notification"  # made by hand


def _history(job: dict[str, Any]) -> Iterator[str]:
    """A line for everything that happened to a job, with how long each attempt took."""
    running: float | None = None
    said = ""
    for step in job["transitions"]:
        took = f" after {human_time(step['time'] - running)}" if running is not None else ""
        running = step["time"] if step["state"] == "Running" else None
        attempt = f" (attempt {step['attempt']})" if step["attempt"] else ""
        detail = f"  {step['detail']}" if step["detail"] not in ("", said) else ""
        said = step["detail"]
        yield f"+{human_time(step['time'] - job['created']):9} {step['state']}{attempt}{took}{detail}"
