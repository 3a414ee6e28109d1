"""How a user is turned away."""


class Refused(Exception):  # noqa: N818 - the cluster's answer, not a defect
    """Who asks is not let in: the HTTP status, and one sentence that says why."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
