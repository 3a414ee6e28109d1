"""Tables for people, JSON for programs, sizes and times that can be read at a glance."""

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
YIELDING = ("NOTE", "WHY", "PROBLEM", "METRICS", "INPUT", "WHEN", "TOOK")
"""Columns that are cut, and then left out, where a terminal is narrow, the first one first.

All others hold what is read or pasted as a whole: names, states, sizes.
"""
READABLE, SHORTEST = 24, 8
"""All of them are cut to the first length before one is cut to the second."""
GAP = 2
"""Blanks between two columns."""


def console(*, stderr: bool = False, width: int | None = None) -> "Console":
    """Where to print; colours and bars only on a terminal."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, width=width)


def printable(text: str) -> str:
    """The text without what would move a terminal's cursor or change its colours; names come from anybody."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def print_json(value: Any) -> None:
    """One JSON value, indented."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Columns under headings; one whose heading starts with `>` is set to the right.

    On a terminal what explains is cut so that a line stays a line; a pipe or a file gets all of it.
    """
    rows = list(rows)
    if not rows:
        click.echo(empty)
        return
    out = console(width=10_000)
    with out.capture() as capture:
        out.print(make_table(columns, rows, console().width if sys.stdout.isatty() else None))
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def make_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], width: int | None = None) -> "Table":
    """The table that `print_table` prints, in `width` characters as far as its YIELDING columns can be cut."""
    from rich.table import Table
    from rich.text import Text

    names = [column.removeprefix(">") for column in columns]
    cells = [[cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row] for row in rows]
    widths = [max([len(name), *(row[at].cell_len for row in cells)]) for at, name in enumerate(names)]
    shown = _fitted(dict(zip(names, widths, strict=True)), width)
    table = Table(box=None, pad_edge=False, header_style="", width=_total(shown))
    for column, name in zip(columns, names, strict=True):
        if name in shown:
            justify: Literal["left", "right"] = "right" if column.startswith(">") else "left"
            table.add_column(Text(name, style="bold"), justify=justify, no_wrap=True, width=shown[name])
    for row in cells:
        table.add_row(*(_cut(name, row[at], shown[name]) for at, name in enumerate(names) if name in shown))
    return table


def _fitted(widths: dict[str, int], width: int | None) -> dict[str, int]:
    """Which columns there is room for, and how much; those that are not YIELDING stay as they are."""

    def excess() -> int:
        return 0 if width is None else _total(widths) - width

    yielding = [name for name in YIELDING if name in widths]
    for length in (READABLE, SHORTEST):
        for name in yielding:
            least = min(widths[name], max(len(name), length))
            widths[name] -= min(max(excess(), 0), widths[name] - least)
    for name in yielding:
        if excess() > 0:
            del widths[name]
    for name in yielding:  # what the last column to go has left
        if name in widths and excess() < 0:
            widths[name] -= excess()
            break
    return widths


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _cut(name: str, cell: "Text", width: int) -> "Text":
    """A cell in `width` characters; of a place in the store the end tells more than the beginning."""
    from rich.cells import set_cell_size
    from rich.text import Text

    if cell.cell_len <= width:
        return cell
    if name == "INPUT":
        return Text("\N{HORIZONTAL ELLIPSIS}" + set_cell_size(cell.plain[::-1], width - 1)[::-1], style=cell.style)
    return Text(set_cell_size(cell.plain, width - 1) + "\N{HORIZONTAL ELLIPSIS}", style=cell.style)


def progress(*, size: bool = False) -> "Progress":
    """A bar on standard error for work that takes a while; nothing where that is no terminal."""
    from rich import progress as bars

    amount = bars.DownloadColumn(binary_units=True) if size else bars.MofNCompleteColumn()
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        amount,
        bars.TimeRemainingColumn(),
        console=console(stderr=True),
        transient=True,
        redirect_stdout=False,
        disable=not sys.stderr.isatty(),
    )


def human_size(size: float) -> str:
    """A number of bytes with a binary unit.

    >>> human_size(0), human_size(1536), human_size(3 * 2**30)
    ('0 B', '1.5 KiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def human_time(seconds: float | None) -> str:
    """A duration.

    >>> human_time(0.034), human_time(12), human_time(75), human_time(7300), human_time(None)
    ('34 ms', '12.0 s', '1 min 15 s', '2 h 1 min', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds // 86400:.0f} days"


def ago(moment: float | None, now: float | None = None) -> str:
    """How long ago a Unix time was."""
    return "-" if moment is None else human_time((now or time.time()) - moment)
