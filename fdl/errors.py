"""The one error family of the room."""


class FdlError(Exception):
    """A declaration that cannot be used: one sentence that names the file, the field and the mend.

    `field` is a path such as `functions.oscar[2].memory`, `problem` the rest of the sentence; either may stand alone.
    """

    def __init__(self, problem: str, *, field: str = "", file: str = "") -> None:
        self.problem = problem
        self.field = field
        self.file = file
        super().__init__(": ".join(part for part in (file, field, problem) if part))

    def below(self, field: str, file: str = "") -> "FdlError":
        """The same complaint, seen from the file that holds the part it is about."""
        return FdlError(self.problem, field=f"{field}.{self.field}".strip("."), file=file)


class ClusterError(FdlError):
    """The cluster refused a request; the sentence is its own where it gave one."""


class UnreachableError(ClusterError):
    """Nobody answers at the cluster's endpoint."""


class PlacedError(ValueError):
    """A rule's complaint about something below the field that it was called for: `place` is the way down to it."""

    def __init__(self, place: str, problem: object) -> None:
        self.place = place
        self.problem = str(problem)
        super().__init__(f"{place}: {problem}")
