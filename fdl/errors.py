"""The one error family of the room, and how its sentences quote what somebody else wrote."""

import json

LONGEST_QUOTE = 80


def quoted(value: object) -> str:
    """A value as JSON, in a length that a sentence bears.

    >>> quoted("4GB"), quoted(True), quoted("two\\nlines")
    ('"4GB"', 'true', '"two\\\\nlines"')
    """
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (ValueError, RecursionError):  # a value that holds itself, or a thousand others
        text = f"a nested {type(value).__name__}"
    return text if len(text) <= LONGEST_QUOTE else f"{text[: LONGEST_QUOTE - 4]}...{text[-1]}"


def printable(text: str) -> str:
    """The text on one line: what no terminal or log should get is escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


class FdlError(Exception):
    """A declaration that cannot be used: one sentence that names the file, the field and the mend.

    `field` is a path such as `functions.oscar[2].memory`, `problem` the rest of the sentence; either may stand alone.
    """

    def __init__(self, problem: str, *, field: str = "", file: str = "") -> None:
        self.problem = problem
        self.field = field
        self.file = file
        super().__init__(printable(": ".join(part for part in (file, field, problem) if part)))

    def below(self, field: str, file: str = "") -> "FdlError":
        """The same complaint, seen from the file that holds the part it is about."""
        return FdlError(self.problem, field=f"{field}.{self.field}".strip("."), file=file)


class ClusterError(FdlError):
    """The cluster refused a request; the sentence is its own where it gave one."""


class CredentialsError(ClusterError):
    """The cluster does not let us in."""


class UnreachableError(ClusterError):
    """Nobody answers at the cluster's endpoint."""


class PlacedError(ValueError):
    """A rule's complaint about something below the field that it was called for: `place` is the way down to it."""

    def __init__(self, place: str, problem: object) -> None:
        self.place = place
        self.problem = str(problem)
        super().__init__(f"{place}: {problem}")
