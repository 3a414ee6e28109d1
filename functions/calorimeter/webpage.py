"""A page of results that needs nothing else: no script, no style sheet, no picture of another host."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from typing import Any

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1e21; margin: 2em auto; max-width: 66em; padding: 0 1em }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em }
table { border-collapse: collapse } th, td { text-align: left; padding: .3em 1.1em .3em 0; vertical-align: top;
  border-bottom: 1px solid #dcdfe3 } td { font-variant-numeric: tabular-nums }
img { max-width: 100% } small { color: #5b6067 }
"""


def page(title: str, parts: Iterable[str]) -> str:
    """The page with these parts, which are HTML."""
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n<h1>{escape(title)}</h1>\n"
    )
    return head + "".join(parts) + "</body></html>\n"


def heading(text: str) -> str:
    """A heading."""
    return f"<h2>{escape(text)}</h2>\n"


def paragraph(text: str, *, small: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p><small>{escape(text)}</small></p>\n" if small else f"<p>{escape(text)}</p>\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain text."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    return f"<table><tr>{top}</tr>\n{body}</table>\n"


def picture(figure: Any, says: str) -> str:
    """A figure of matplotlib as part of the page; the same figure gives the same bytes."""
    data = base64.b64encode(png(figure)).decode()
    return f'<p><img alt="{escape(says, quote=True)}" src="data:image/png;base64,{data}"></p>\n'


def png(figure: Any) -> bytes:
    """A figure as PNG, without the program's name and version."""
    stream = BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def figure(width: float, height: float, dpi: int = 90) -> Any:
    """An empty figure, in inches, that no window system has to do with."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), dpi=dpi)
    FigureCanvasAgg(made)
    # margins in inches: matplotlib's own layouts draw everything twice
    made.subplots_adjust(0.65 / width, 0.5 / height, 1 - 0.15 / width, 1 - 0.3 / height, wspace=0.25, hspace=0.1)
    return made
