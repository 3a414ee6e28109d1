"""Quantities are Kubernetes'; what is none comes with the one that was probably meant."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fdl.quantities import parse_cpu, parse_memory, parse_quantity


@pytest.mark.parametrize(
    "text, value",
    [("1Gi", 2**30), ("512Mi", 2**29), ("4G", 4e9), ("200m", "0.2"), ("0.5", "0.5"), (".5", "0.5"), ("1e3", 1000)],
)
def test_kubernetes_quantities_are_read(text: str, value: float | str) -> None:
    assert parse_quantity(text) == Decimal(str(value))


@pytest.mark.parametrize(
    "text, mend",
    [
        ("4GB", "4Gi"),
        ("512mb", "512Mi"),
        ("1.5 GiB", "1.5Gi"),
        ("4K", "4Ki"),
        ("2 cores", "2"),
        ("50%", "0.5"),
        ("1,5", "1.5"),
        ("much", "1Gi"),
        ("", "1Gi"),
        ("٣Gi", "1Gi"),
    ],
)
def test_anything_else_is_refused_with_the_mend(text: str, mend: str) -> None:
    with pytest.raises(ValueError, match="is no Kubernetes quantity") as caught:
        parse_quantity(text)
    assert str(caught.value).endswith(f'write "{mend}"')


@given(st.text())
def test_a_mend_is_itself_a_quantity(text: str) -> None:
    try:
        parse_quantity(text)
    except ValueError as error:
        parse_quantity(str(error).rpartition('write "')[2].removesuffix('"'))


def test_memory_without_its_unit_is_refused() -> None:
    with pytest.raises(ValueError, match='"512" is less than a mebibyte of memory; write "512Mi"'):
        parse_memory("512")
    with pytest.raises(ValueError, match='write "512Mi"'):
        parse_memory("512m")


@pytest.mark.parametrize("text", ["0", "-1"])
def test_a_processor_share_is_above_zero(text: str) -> None:
    with pytest.raises(ValueError, match="above zero"):
        parse_cpu(text)
