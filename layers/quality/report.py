"""A validation's report: JSON for programs, and the same as a page for people."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layers.quality.page import page
from layers.quality.verdict import Verdict

VERSION = 1


def report(verdict: Verdict, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a report: the verdict, and what the twin has to say of models and data (`facts`)."""
    return {"version": VERSION, **verdict.to_json(), **facts}


def write_report(document: Mapping[str, Any], json_path: Path, html_path: Path) -> bytes:
    """Write both files, the same bytes for the same document; returns the JSON."""
    data = (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    json_path.write_bytes(data)
    html_path.write_text(page(document), encoding="utf-8")
    return data
