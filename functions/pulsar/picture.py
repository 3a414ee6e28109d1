"""A picture of an observation: its label timeline and its strongest events."""

from pathlib import Path
from typing import Any

import numpy as np

from functions.pulsar.arrays import Flags, Floats, Positions
from functions.pulsar.confirm import Event
from functions.pulsar.frames import ROWS, SAMPLES, FramesFile
from functions.pulsar.labels import COMPONENTS
from functions.pulsar.report import Result

COLOURS = {"pulse": "#d1495b", "nbrfi": "#00798c", "bbrfi": "#edae49", "other": "#5c4d7d"}
MAX_EVENTS = 3
MAX_COLUMNS = 640
"""Widest waterfall and timeline, columns; longer ones are averaged."""


def draw(file: FramesFile, result: Result, path: Path) -> None:
    """Draw the picture as PNG; the same result gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    events = sorted(result.events, key=lambda event: -event.snr)[:MAX_EVENTS]
    events.sort(key=lambda event: event.time_s)
    columns = max(1, len(events))
    figure = Figure(figsize=(4.2 * max(2, columns) + 0.8, 7.6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(3, columns, height_ratios=(1, 3, 1.1))
    _timeline(figure.add_subplot(grid[0, :]), result)
    if events:
        for column, event in enumerate(events):
            _waterfall(figure.add_subplot(grid[1, column]), file, result, event)
            _profile(figure.add_subplot(grid[2, column]), file, result, event)
    else:
        _overview(figure.add_subplot(grid[1:, 0]), file, result)
    kept, total = int(result.kept.sum()), len(result.kept)
    name = _text(result.header.source_name or "observation")
    pulses = f"{len(result.events)} pulse" + ("" if len(result.events) == 1 else "s")
    figure.suptitle(f"{name}: {pulses}, {kept} of {total} frames kept", fontsize=12)
    figure.savefig(path, format="png", metadata={"Software": None})


def _text(name: str) -> str:
    """A name that the font can draw, and that is no formula."""
    return "".join(c if c.isprintable() and ord(c) < 0x250 and c != "$" else "?" for c in name)


def _timeline(axes: Any, result: Result) -> None:
    times = result.index * result.header.frame_s
    for row, name in enumerate(COMPONENTS):
        where = result.present[:, row]
        axes.broken_barh(_bars(times, where, result.header.frame_s), (row - 0.4, 0.8), color=COLOURS[name])
    for event in result.events:
        axes.plot(event.time_s, -0.75, "v", color=COLOURS["pulse"], markersize=5)
    end = float(times[-1] + result.header.frame_s)
    axes.set(xlim=(float(times[0]), end), ylim=(3.6, -1.1), xlabel="time, s")
    axes.set_yticks(range(len(COMPONENTS)), COMPONENTS)
    axes.set_title("labels of the frames", fontsize=9, loc="left")


def _bars(times: Floats, where: Flags, frame_s: float) -> list[tuple[float, float]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(np.int8)))
    return [
        (float(times[low]), float(times[high - 1] + frame_s - times[low]))
        for low, high in zip(edges[::2], edges[1::2], strict=True)
    ]


def _sigmas(file: FramesFile, result: Result, numbers: Positions) -> Floats:
    """Frames side by side in sigmas against their references, shape (256, 256 n)."""
    parts = []
    for number in numbers:
        reference = [r for r in result.references if r.start <= number][-1]
        mean, sigma = reference.of(int(number))
        frame = file.read(int(number), int(number) + 1)[0].astype(np.float32)
        parts.append(np.where(sigma[:, None] > 0, (frame - mean[:, None]) / np.maximum(sigma, 1e-6)[:, None], 0))
    return np.concatenate(parts, axis=1).astype(np.float32)


def _window(result: Result, event: Event) -> tuple[Positions, int]:
    """Frames around an event, and how many samples to average in a column."""
    first, last = event.frames[0] - 1, event.frames[-1] + 1
    numbers = np.flatnonzero((result.index >= first) & (result.index <= last))
    limit = 96
    numbers = numbers[:limit]
    width = max(1, round(event.width_s / result.header.sampling_time_s / 2))
    return numbers, max(width, -(-len(numbers) * SAMPLES // MAX_COLUMNS))


def _waterfall(axes: Any, file: FramesFile, result: Result, event: Event) -> None:
    numbers, factor = _window(result, event)
    cells = _sigmas(file, result, numbers)
    faint = event.snr < 20
    image = _average(np.clip(cells, -5, 5), factor * (2 if faint else 1), 8 if faint else 4)
    start = float(result.index[numbers[0]]) * result.header.frame_s
    length = len(numbers) * result.header.frame_s
    # rows are drawn evenly, as the file has them; the scale names the frequency of a few of them
    axes.imshow(
        image,
        aspect="auto",
        extent=(start, start + length, ROWS, 0),
        cmap="viridis",
        vmin=-2.2,
        vmax=4,
        interpolation="nearest",
    )
    _frequency_ticks(axes, result)
    rows = np.arange(ROWS)
    frequency = result.header.frequency_mhz
    inverse = frequency**-2.0 - frequency[0] ** -2.0
    track = event.time_s + event.sweep_s * inverse / inverse[-1]
    for offset in (-1.0, 1.0):
        axes.plot(track + offset * max(2.5 * event.width_s, 0.02 * length), rows, color="white", lw=0.8, alpha=0.7)
    axes.set(xlim=(start, start + length), ylim=(ROWS, 0), xlabel="time, s")
    axes.set_title(
        f"t = {event.time_s:.3f} s, DM {event.dm_pc_cm3:.1f} ± {event.dm_error_pc_cm3:.1f} pc/cm³, S/N {event.snr:.1f}",
        fontsize=9,
        loc="left",
    )


def _frequency_ticks(axes: Any, result: Result) -> None:
    rows = np.linspace(0, ROWS - 1, 5).astype(int)
    axes.set_yticks(rows, [f"{result.header.frequency_mhz[row]:.0f}" for row in rows])
    axes.set_ylabel("frequency, MHz")


def _average(cells: Floats, factor: int, rows: int) -> Floats:
    """Sums of `rows` x `factor` cells in their sigmas."""
    usable = cells[:, : cells.shape[1] // factor * factor]
    blocks = usable.reshape(len(cells) // rows, rows, -1, factor)
    return np.asarray(blocks.sum(axis=(1, 3)) / np.sqrt(rows * factor), dtype=np.float32)


def _profile(axes: Any, file: FramesFile, result: Result, event: Event) -> None:
    numbers, factor = _window(result, event)
    cells = np.clip(_sigmas(file, result, numbers), -5, 5)
    cells -= cells.mean(axis=1, keepdims=True)
    frequency = result.header.frequency_mhz
    inverse = frequency**-2.0 - frequency[0] ** -2.0
    interval = result.header.sampling_time_s
    shifts = np.round(event.sweep_s / interval * inverse / inverse[-1]).astype(int)
    length = cells.shape[1]
    total, count = np.zeros(length), np.zeros(length)
    for row, shift in zip(cells, shifts, strict=True):
        if shift < length:
            total[: length - shift] += row[shift:]
            count[: length - shift] += 1
    series = total / np.sqrt(np.maximum(count, 1))
    usable = series[: len(series) // factor * factor].reshape(-1, factor).sum(axis=1) / np.sqrt(factor)
    start = float(result.index[numbers[0]]) * result.header.frame_s
    times = start + (np.arange(len(usable)) + 0.5) * factor * interval
    axes.step(times, usable, where="mid", color=COLOURS["pulse"], lw=0.9)
    reach = max(40 * event.width_s, 24 * factor * interval)
    axes.set(
        xlim=(max(start, event.time_s - reach), min(float(times[-1]), event.time_s + reach)),
        xlabel="time at the highest frequency, s",
        ylabel="S/N",
    )
    axes.set_title("dedispersed", fontsize=9, loc="left")


def _overview(axes: Any, file: FramesFile, result: Result) -> None:
    numbers = np.unique(np.linspace(0, len(result.index) - 1, min(len(result.index), 64)).astype(np.int64))
    cells = np.clip(_sigmas(file, result, numbers), -5, 5)
    factor = max(1, cells.shape[1] // MAX_COLUMNS)
    axes.imshow(
        _average(cells, factor, 4), aspect="auto", extent=(0, len(numbers), ROWS, 0), cmap="viridis", vmin=-2.2, vmax=6
    )
    _frequency_ticks(axes, result)
    axes.set_xlabel(f"{len(numbers)} of {len(result.index)} frames, evenly spread")
    axes.set_title("no pulse was found", fontsize=9, loc="left")
