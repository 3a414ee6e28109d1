"""Kubernetes quantities: `500m`, `0.2`, `1Gi`, `2e3`.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import Decimal

from fdl.errors import quoted

_BINARY = {suffix: 1024 ** (power + 1) for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"))}
_DECIMAL = {
    "n": "1e-9",
    "u": "1e-6",
    "m": "1e-3",
    "": "1",
    "k": "1e3",
    "M": "1e6",
    "G": "1e9",
    "T": "1e12",
    "P": "1e15",
}
_SUFFIXES = {name: Decimal(value) for name, value in (*_BINARY.items(), *_DECIMAL.items(), ("E", "1e18"))}

_QUANTITY = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?", re.ASCII)
_LARGEST = 18
"""Digits before the point, less one: a quantity is a 64-bit number."""
_LOOSE = re.compile(r"\s*([+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+))\s*([a-zA-Z%]*)\s*", re.ASCII)


def parse_quantity(text: str, example: str = "1Gi") -> Decimal:
    """The value of a quantity, in bytes or cores.

    >>> parse_quantity("1Gi"), parse_quantity("200m"), parse_quantity("2e3")
    (Decimal('1073741824'), Decimal('0.200'), Decimal('2E+3'))

    Raises ValueError, with a sentence that holds the mend.
    """
    match = _QUANTITY.fullmatch(text)
    if not match:
        raise ValueError(f'{quoted(text)} is no Kubernetes quantity; write "{_mend(text, example)}"')
    number, suffix = match.groups(default="")
    try:
        value = Decimal(number) * _SUFFIXES[suffix] if suffix in _SUFFIXES else Decimal(number + suffix)
    except ArithmeticError:
        value = Decimal("Infinity")
    if not value.is_finite() or (value and value.adjusted() > _LARGEST):
        raise ValueError(f'{quoted(text)} is beyond every Kubernetes quantity; write "{example}"')
    return value


def parse_memory(text: str) -> Decimal:
    """A quantity of bytes; less than a mebibyte is a forgotten unit, and an error."""
    value = parse_quantity(text)
    if value < 2**20:
        number = text.rstrip("m")
        mend = f"{number}Mi" if number.isdecimal() else "256Mi"
        raise ValueError(f'{quoted(text)} is less than a mebibyte of memory; write "{mend}"')
    return value


def parse_cpu(text: str) -> Decimal:
    """A positive number of cores."""
    value = parse_quantity(text, example="0.5")
    if value <= 0:
        raise ValueError(f'{quoted(text)} is no number of processor cores above zero; write "0.5"')
    if value > 100_000:
        raise ValueError(f'{quoted(text)} is more processor cores than any cluster has; write "1000m" for one')
    return value


def _mend(text: str, example: str) -> str:
    """The quantity that was probably meant: `4GB` -> `4Gi`, `2 cores` -> `2`, `50%` -> `0.5`."""
    match = _LOOSE.fullmatch(text)
    if not match:
        return example
    number, unit = match.group(1).replace(",", "."), match.group(2)
    if unit == "%":
        return str(Decimal(number) / 100)
    letter = unit[:1].upper()
    if letter and letter in "KMGTPE" and unit.lower() in {letter.lower() + rest for rest in ("", "b", "i", "ib")}:
        return f"{number}{letter}i"
    return number
