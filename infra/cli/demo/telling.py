"""What the demo's result means, in words and tables, and where to go from there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from infra.cli.errors import DIOSCAR
from infra.cli.output import human_size, human_time, print_table

MOST_EVENTS = 10


def tell(result: Mapping[str, Any], folder: Path, data: Path | None, *, started: bool) -> None:
    """Print the result as a person wants to read it."""
    _tell_frames(result)
    _tell_events(result["events"])
    if "truth" in result:
        _tell_truth(result["truth"])
    _tell_more(result, folder, data, started=started)


def _tell_frames(result: Mapping[str, Any]) -> None:
    frames, size = result["frames"], result["bytes"]
    click.echo(
        f"\nKept {frames['kept']} of {frames['in']} frames, dropped {frames['dropped']}: "
        f"{human_size(size['file'])} became {human_size(size['kept'])}, "
        f"{size['file'] / max(size['kept'], 1):.0f} times less."
    )
    click.echo(", ".join(f"{count} {label}" for label, count in result["labels"].items() if count))


def _tell_events(events: list[dict[str, Any]]) -> None:
    click.echo(f"\n{len(events)} pulse{'' if len(events) == 1 else 's'} found" + (":" if events else "."))
    if not events:
        return
    strongest = sorted(events, key=lambda event: -event["snr"])[:MOST_EVENTS]
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


def _tell_truth(truth: Mapping[str, Any]) -> None:
    pulses = truth["pulses"]
    found, missed, false = (pulses[name] for name in ("found", "missed", "false"))
    wrong = f"; {len(false)} of them are no pulses" if false else ""
    click.echo(f"{len(found)} of the {len(found) + len(missed)} true pulses are among them{wrong}.")
    for pulse in missed:
        click.echo(f"Missed: at {pulse['time_s']:.3f} s, DM {pulse['dm_pc_cm3']:.1f} pc/cm³, S/N {pulse['snr']:.1f}")
    click.echo("\nFrames by their true label (rows) and the label given (columns):")
    print_table(["", *(f">{label}" for label in truth["columns"])], truth["rows"], empty="")
    frames = truth["pulse_frames"]
    click.echo(
        f"{100 * truth['exact']:.1f} % exactly right; "
        f"{frames['found']} of {frames['all']} frames with a pulse are labelled so."
    )


def _tell_more(result: Mapping[str, Any], folder: Path, data: Path | None, *, started: bool) -> None:
    option, cluster = ("", "") if data is None else (f" --data {data}", f" --cluster {data}")
    picture = next((path for path in result["files"] if path.endswith(".png")), None)
    hints = {
        f"{DIOSCAR} jobs{cluster}": "what ran, and how long it took",
        f"{DIOSCAR} ls -r pulsar-classify{cluster}": "all results, and how each came about (_runs)",
        f"{DIOSCAR} demo YOUR.fil{option}": "the same with a file of yours",
        f"{DIOSCAR} down{option}": "stop the cluster, which " + ("still runs" if started else "ran before"),
    }
    if picture:
        hints = {picture: "the observation and what was found", **hints}
    click.echo(f"\nDone in {human_time(result['seconds'])}. The files are in {folder}/. To look further:")
    widest = max(map(len, hints))
    for hint, purpose in hints.items():
        click.echo(f"  {hint:{widest}}  {purpose}")
