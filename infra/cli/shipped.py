"""The models that twins ship, which serve as long as nothing was promoted."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def shipped_models() -> dict[str, Path]:
    """The file of each model that a twin ships, by the model's name."""
    return {path.stem: path for folder in _twins() for path in sorted(Path(folder).glob("*/*.onnx"))}


def place(path: Path) -> str:
    """Where a shipped file is, as people and manifests name it."""
    return f"functions/{path.parent.name}/{path.name}"


def metadata(path: Path) -> dict[str, Any]:
    """What a model's file says of itself; nothing, where it is no ONNX model or onnxruntime is not installed."""
    try:
        import onnxruntime

        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        said = dict(session.get_modelmeta().custom_metadata_map)
    except Exception:  # onnxruntime raises a family of its own for each reason
        return {}
    return {name: _parsed(text) for name, text in sorted(said.items())}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _twins() -> Iterator[str]:
    spec = importlib.util.find_spec("functions")
    yield from (spec.submodule_search_locations or ()) if spec else ()
