"""The report as one page."""

from collections.abc import Mapping
from typing import Any

from functions.calorimeter.validation.comparison import Comparison
from layers.quality import page as plain


def page(document: Mapping[str, Any], comparison: Comparison) -> str:
    """The page."""
    return plain.page(document)
