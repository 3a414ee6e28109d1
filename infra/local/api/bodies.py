"""What a request says in JSON, read as OSCAR's decoder does: keys in any case, unknown ones ignored, null absent."""

import json
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from fdl.errors import FdlError
from fdl.folding import fold, sentence
from fdl.parts import Part

Model = TypeVar("Model", bound=Part)

LARGEST = 1 << 20
"""Bytes of a body that has no script in it."""
DRAINED = 256 << 20
"""Bytes of one that is too large that are taken all the same, for who still sends does not hear an answer."""


class BodyError(ValueError):
    """The body is not what the route takes; the message names the field and the mend."""


async def read(request: Request, model: type[Model], largest: int = LARGEST) -> Model:
    """The request's body as a model. Raises BodyError."""
    value = document(await raw(request, largest))
    if not isinstance(value, dict):
        raise BodyError("the body is no JSON object; write {...}")
    try:
        return model.model_validate(fold(model, value, strict=False), context={"strict": False})
    except ValidationError as error:
        field, problem = sentence(error.errors(include_url=False)[0])
        raise BodyError(f"{field}: {problem}" if field else problem) from None
    except FdlError as error:
        raise BodyError(str(error)) from None
    except RecursionError:
        raise BodyError("the body is nested too deeply; write it flat") from None


async def raw(request: Request, largest: int = LARGEST) -> bytes:
    """The request's body. Raises BodyError where it is larger than it may be."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > DRAINED:
            break
        if size <= largest:
            chunks.append(chunk)
    if size > largest:
        raise BodyError(f"the body is larger than {largest >> 20} MiB; make it smaller")
    return b"".join(chunks)


def document(body: bytes) -> Any:
    """The JSON in a body, halves of surrogate pairs replaced. Raises BodyError."""
    try:
        value = json.loads(body)
        text = json.dumps(value, ensure_ascii=False)
        try:
            text.encode()
        except UnicodeEncodeError:
            value = json.loads(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError) as error:
        raise BodyError(f"the body is no JSON ({error})") from None
    return value
