"""A candidate among the inputs of a validation: a version's model and its manifest, which belong together."""

import json
from collections.abc import Sequence

from layers.learning.manifest import Manifest
from layers.runtime import Input, InputError
from layers.runtime.models import RegistryError


def read_version(
    request: str, inputs: Sequence[Input], model: str, *, beside: str, mend: str
) -> tuple[Input, Manifest]:
    """The one `.onnx` among `inputs`, a version of `model`, and the manifest that names it.

    Raises InputError where either is missing or not the other's; `beside` says what else the request may name, and
    `mend` what to do.
    """
    found, told = (_the_one(request, inputs, suffix, beside) for suffix in (".onnx", "manifest.json"))
    content = told.path.read_bytes()
    where = f"{told.bucket}/{told.key}"
    try:
        manifest = Manifest.read(content, where)
    except RegistryError as error:
        raise InputError(str(error)) from None
    if "data" not in json.loads(content):
        raise InputError(f"{where}: data: is missing, so nobody knows what the version was trained on; {mend}")
    if manifest.model != model or manifest.sha256 != found.sha256:
        raise InputError(f"{where}: is the manifest of {manifest.model} {manifest.version}, not of {found.key}; {mend}")
    return found, manifest


def _the_one(request: str, inputs: Sequence[Input], suffix: str, beside: str) -> Input:
    found = [item for item in inputs if item.key.endswith(suffix)]
    if len(found) != 1:
        raise InputError(
            f"{request}: inputs: {len(found)} of them end in {suffix}; name one model.onnx and its manifest.json, "
            f"the candidate, beside {beside}"
        )
    return found[0]
