"""What can go wrong between a function and an object store; each message names the object and the endpoint."""


class ObjectError(Exception):
    """An object could not be read, written or listed; `status` and `code` are the store's, when it answered."""

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class NoSuchObject(ObjectError):  # noqa: N818 - the store's own word
    """The bucket or the key does not exist."""


class AccessRefused(ObjectError):  # noqa: N818 - an answer, said plainly
    """The credentials are wrong, or may not do this."""


class StoreUnavailable(ObjectError):  # noqa: N818 - a state of the other side
    """The store did not answer, or not to the end, however often it was asked; worth another attempt later."""


class ObjectExists(ObjectError):  # noqa: N818 - a state of the other side
    """What was to be stored only where nothing was yet: something is there."""
