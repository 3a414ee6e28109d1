"""Durations and numbers of bytes as people write them: `90s`, `12h`, `30d`; `500M`, `10Gi`."""

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_BYTES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_DURATION = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_AMOUNT = re.compile(r"(\d{1,15})(|k|M|G|T|Ki|Mi|Gi|Ti)B?", re.ASCII)


def parse_duration(text: object) -> int:
    """Seconds of a duration above zero.

    >>> parse_duration("90s"), parse_duration("12h"), parse_duration("30d")
    (90, 43200, 2592000)

    Raises ValueError with the mend.
    """
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None or not int(found[1]):
        raise ValueError(f'{text!r:.40} is no duration; write a number and s, m, h, d or w, e.g. "12h" or "30d"')
    return int(found[1]) * _SECONDS[found[2]]


def parse_bytes(text: object) -> int:
    """A number of bytes above zero.

    >>> parse_bytes("10Gi"), parse_bytes("500M"), parse_bytes(4096)
    (10737418240, 500000000, 4096)

    Raises ValueError with the mend.
    """
    whole = isinstance(text, int) and not isinstance(text, bool)
    found = _AMOUNT.fullmatch(str(text)) if whole or isinstance(text, str) else None
    if found is None or not int(found[1]):
        raise ValueError(f'{text!r:.40} is no number of bytes; write e.g. "500M" or "10Gi"')
    return int(found[1]) * _BYTES[found[2]]
