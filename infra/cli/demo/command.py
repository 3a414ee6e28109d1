"""The command: a cluster, the pulsar twin on it, an observation through it, and what came out."""

import io
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from infra.cli import embedded
from infra.cli.cluster import data_option
from infra.cli.demo import follow, report
from infra.cli.doctor import port_is_free
from infra.cli.errors import DIOSCAR, CliError
from infra.cli.objects import PART_SIZE
from infra.cli.output import human_size, human_time, json_option, print_json, print_table
from infra.cli.target import Target, store_errors, target

HERE = Path(__file__).parents[3]
FDL = HERE / "fdl" / "pulsar.yaml"
REQUEST = {"seed": 1, "duration_s": 20.0}


@click.command()
@click.argument(
    "file", metavar="[FILE.fil]", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@data_option
@click.option(
    "--to",
    "folder",
    metavar="DIR",
    default="dioscar-demo",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where to put the results.",
)
@json_option
def demo(file: Path | None, data: Path | None, folder: Path, as_json: bool) -> None:
    """See an observation become labelled frames: one made on the spot, or your own filterbank file."""
    began = time.monotonic()
    steps = _Steps(silent=as_json)
    with steps:
        started, there = _cluster(embedded.data_folder(data), steps)
        _deploy(there, steps)
        folder.mkdir(parents=True, exist_ok=True)
        truth = None
        if file is None:
            file, truth = _observe(there, folder, steps)
        made = _classify(there, file, folder, steps)
    result = _result(file, made, truth)
    result["seconds"] = round(time.monotonic() - began, 3)
    if as_json:
        print_json(result)
    else:
        _tell(result, folder, data, started=started)


def _cluster(data: Path, steps: "_Steps") -> tuple[bool, Target]:
    """The cluster of the data folder, started where none runs, on free ports where the usual ones are taken."""
    with steps.step("cluster") as say:
        running = embedded.find(data)
        started = running is None
        if running is None:
            say("starting")
            api, s3 = (port if port_is_free(port) else 0 for port in (8080, 9000))
            running = embedded.start(data, ["--api", f"127.0.0.1:{api}", "--s3", f"127.0.0.1:{s3}"])
        say(f"{running.api} {'started' if started else 'runs already'}")
        return started, target(str(data))


def _deploy(there: Target, steps: "_Steps") -> None:
    from fdl.apply import apply, services_on
    from fdl.document import read_file
    from fdl.plan import plan

    with steps.step("services") as say:
        instructions = plan(read_file(FDL), services_on(there.client))
        results = list(apply(instructions, there.client))
        for result in results:
            if result.error:
                raise CliError(f"{result.service}: {result.error}")
        new = sum(result.action != "unchanged" for result in results)
        say(f"{FDL.name}: {new} deployed" if new else f"{FDL.name}: deployed already")


def _observe(there: Target, folder: Path, steps: "_Steps") -> tuple[Path, Path]:
    """Have the twin make an observation; its file and the truth about it."""
    service, key = "pulsar-synthesise", "in/demo.json"
    with steps.step("observation") as say:
        body = json.dumps(REQUEST).encode()
        with store_errors(f"{service}/{key}"):
            there.store.put_object(service, key, io.BytesIO(body), len(body), content_type="application/json")
        done = follow.wait(there, follow.job_of(there, service, service, key), steps.watch(say, "being made"))
        files = {path.name: path for path in follow.fetch_outputs(there, done, folder)}
        try:
            observation, truth = files["demo.json.fil"], files["demo.json.truth.json"]
        except KeyError as error:
            raise CliError(f"{service} made no {error.args[0]}; look at it with: {DIOSCAR} jobs {done['id']}") from None
        say(f"{observation.name}, {human_size(observation.stat().st_size)}, made in {human_time(_took(done))}")
        return observation, truth


def _classify(there: Target, file: Path, folder: Path, steps: "_Steps") -> list[Path]:
    """Put a file into the chain's mailbox and follow it to the end; the files that came out."""
    first, second = "pulsar-preprocess", "pulsar-classify"
    key = f"in/{file.name}"
    with steps.step("upload") as say:
        say(file.name)
        with store_errors(f"{first}/{key}"):
            there.store.fput_object(first, key, str(file), part_size=PART_SIZE)
        say(f"{first}/{key}, {human_size(file.stat().st_size)}")
    with steps.step(first) as say:
        cut = follow.wait(there, follow.job_of(there, first, first, key), steps.watch(say, "cutting into frames"))
        say(f"cut into frames in {human_time(_took(cut))}")
    with steps.step(second) as say:
        seen = follow.wait(there, follow.triggered(cut, second), steps.watch(say, "labelling"))
        say(f"labelled in {human_time(_took(seen))}")
    with steps.step("results") as say:
        files = list(follow.fetch_outputs(there, seen, folder))
        say(f"{len(files)} files in {folder}/")
    return files


def _took(job: Mapping[str, Any]) -> float:
    return float(job["finished"] - job["started"])


def _result(file: Path, made: list[Path], truth: Path | None) -> dict[str, Any]:
    """Everything that the demo tells, as JSON."""
    summary, labels, kept = (_ending(made, end) for end in (".summary.json", ".labels.json", ".kept.h5"))
    facts = report.read(summary)
    result = {
        "file": str(file),
        "frames": facts["frames"],
        "labels": facts["labels"],
        "events": facts["events"],
        "bytes": {"file": file.stat().st_size, "kept": kept.stat().st_size},
        "files": [str(path) for path in made],
    }
    if truth is not None:
        matrix = report.confusion(report.read(labels), report.read(truth))
        found, all_pulses = matrix.pulses()
        result["truth"] = {
            "columns": matrix.labels,
            "rows": matrix.rows(),
            "exact": matrix.exact,
            "pulse_frames": {"found": found, "all": all_pulses},
        }
    return result


def _ending(files: list[Path], end: str) -> Path:
    for path in files:
        if path.name.endswith(end):
            return path
    raise CliError(f"pulsar-classify wrote no file that ends with {end}")


def _tell(result: Mapping[str, Any], folder: Path, data: Path | None, *, started: bool) -> None:
    """Print the result as a person wants to read it, and where to go from here."""
    frames, size = result["frames"], result["bytes"]
    factor = size["file"] / max(size["kept"], 1)
    click.echo(
        f"\nKept {frames['kept']} of {frames['in']} frames, dropped {frames['dropped']}: "
        f"{human_size(size['file'])} became {human_size(size['kept'])}, {factor:.0f} times less."
    )
    click.echo(", ".join(f"{count} {label}" for label, count in result["labels"].items() if count))
    events = result["events"]
    click.echo(f"\n{len(events)} pulse{'' if len(events) == 1 else 's'} found" + (":" if events else "."))
    strongest = sorted(events, key=lambda event: -event["snr"])[:10]
    if events:
        rows = [
            (
                f"{event['time_s']:.3f} s",
                f"{event['dm_pc_cm3']:.1f} pc/cm³",
                f"{1000 * event['width_s']:.1f} ms",
                f"{event['snr']:.1f}",
            )
            for event in sorted(strongest, key=lambda event: event["time_s"])
        ]
        print_table([">TIME", ">DM", ">WIDTH", ">S/N"], rows, empty="")
    if len(events) > len(strongest):
        click.echo(f"({len(events) - len(strongest)} weaker ones are in the summary)")
    truth = result.get("truth")
    if truth:
        click.echo("\nFrames by their true label (rows) and the label given (columns):")
        print_table(["", *(f">{label}" for label in truth["columns"])], truth["rows"], empty="")
        found, every = truth["pulse_frames"]["found"], truth["pulse_frames"]["all"]
        click.echo(
            f"{100 * truth['exact']:.1f} % exactly right; {found} of {every} frames with a pulse are labelled so."
        )
    option = "" if data is None else f" --data {data}"
    cluster = "" if data is None else f" --cluster {data}"
    picture = next((path for path in result["files"] if path.endswith(".png")), None)
    click.echo(f"\nDone in {human_time(result['seconds'])}. The files are in {folder}/" + (":" if picture else ""))
    hints = {
        picture or "": "the observation and what was found",
        f"{DIOSCAR} jobs{cluster}": "what ran, and how long it took",
        f"{DIOSCAR} ls -r pulsar-classify{cluster}": "all results, and how each came about (_runs)",
        f"{DIOSCAR} demo YOUR.fil{option}": "the same with a file of yours",
        f"{DIOSCAR} down{option}": "stop the cluster, which " + ("still runs" if started else "ran before"),
    }
    for hint, purpose in hints.items():
        if hint:
            click.echo(f"  {hint:44} {purpose}")


class _Steps:
    """What happens, a line for each step: live on a terminal, once it is done elsewhere."""

    def __init__(self, *, silent: bool) -> None:
        from rich.console import Console

        self._silent = silent
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def __enter__(self) -> "_Steps":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def step(self, name: str) -> "_Step":
        """A step; what it says last stays."""
        return _Step(self._console, name, silent=self._silent)

    def watch(self, say: "_Step", doing: str) -> follow.Watch:
        """Say how far a job has come."""

        def look(job: Mapping[str, Any]) -> None:
            progress = job.get("progress")
            share = f", {100 * progress['done'] / progress['total']:.0f} %" if progress and progress["total"] else ""
            again = f" (attempt {job['attempt']}: {job['reason']})" if job["state"] == "Retrying" else ""
            say(f"{'waiting' if job['state'] == 'Pending' else doing}{share}{again}")

        return look


class _Step:
    """One line with a spinner while it lasts."""

    def __init__(self, console: Any, name: str, *, silent: bool) -> None:
        from rich.status import Status

        self._console = console
        self._name = name
        self._text = ""
        self._silent = silent
        self._status = None if silent or not console.is_terminal else Status("", console=console)

    def __enter__(self) -> "_Step":
        if self._status:
            self._status.start()
        self(" ")
        return self

    def __call__(self, text: str) -> None:
        """Say how it goes."""
        self._text = text
        if self._status:
            self._status.update(f"{self._name:18}{text}"[: shutil.get_terminal_size().columns - 3])

    def __exit__(self, kind: object, *_: object) -> None:
        if self._status:
            self._status.stop()
        if kind is None and not self._silent:
            self._console.print(f"{self._name:20}{self._text}", markup=False)
