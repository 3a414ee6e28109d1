"""The command: a cluster, the pulsar twin on it, an observation through it, and what came out."""

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from infra.cli import embedded
from infra.cli.cluster import data_option
from infra.cli.demo import follow, report
from infra.cli.demo.steps import Steps
from infra.cli.demo.telling import tell
from infra.cli.doctor import port_is_free
from infra.cli.errors import DIOSCAR, CliError
from infra.cli.objects import PART_SIZE
from infra.cli.output import human_size, human_time, json_option, print_json
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
    steps = Steps(silent=as_json)
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
        tell(result, folder, data, started=started)


def _cluster(data: Path, steps: Steps) -> tuple[bool, Target]:
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


def _deploy(there: Target, steps: Steps) -> None:
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


def _observe(there: Target, folder: Path, steps: Steps) -> tuple[Path, Path]:
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


def _classify(there: Target, file: Path, folder: Path, steps: Steps) -> list[Path]:
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
        known = report.read(truth)
        matrix = report.confusion(report.read(labels), known)
        found, all_pulses = matrix.pulses()
        events = report.pulses(facts["events"], known)
        result["truth"] = {
            "columns": matrix.labels,
            "rows": matrix.rows(),
            "exact": matrix.exact,
            "pulse_frames": {"found": found, "all": all_pulses},
            "pulses": {"found": events.found, "missed": events.missed, "false": events.false},
        }
    return result


def _ending(files: list[Path], end: str) -> Path:
    for path in files:
        if path.name.endswith(end):
            return path
    raise CliError(f"pulsar-classify wrote no file that ends with {end}")
