"""What a function would say of its variables, said before it is deployed, where its module can be imported.

`python -P -m layers.runtime.preflight` reads `{service: {variable: value}}` from standard input and answers
`{service: [sentence, ...]}`; it is a process of its own because it imports the functions.
"""

import dataclasses
import difflib
import json
import os
import re
import sys
from collections.abc import Mapping

from layers.runtime import function as functions
from layers.runtime.contract import InputError
from layers.runtime.parameters import read_settings

OURS = ("DIOSCAR_FUNCTION", "DIOSCAR_REGISTRY", "FORWARD")
"""What the runtime itself reads; `DIOSCAR_MODEL_<NAME>` beside them."""
OTHERS = re.compile(
    r"(OMP|OPENBLAS|MKL|NUMEXPR|CUDA|NVIDIA|HDF5|ORT|TORCH|OTEL|AWS|MINIO|OSCAR|LC|LD|SSL)_\w+"
    r"|PYTHON\w+|MPL\w+|\w+_PROXY|\w+_CA_BUNDLE|TZ|LANG|HOME|PATH|TMPDIR|LOG_LEVEL",
    re.IGNORECASE,
)
"""Variables that libraries read, which no function declares."""


def complaints(variables: Mapping[str, str]) -> list[str]:
    """A sentence for each variable that the function would not know, or not take; none where it cannot be imported."""
    name = variables.get("DIOSCAR_FUNCTION", "")
    try:
        function = functions.load_app(name) if functions.is_app(name) else functions.load(name)
    except InputError as error:
        return [f"{error} (another machine's image may have it)"]
    except ImportError:
        return []  # what it needs is in its image, not here
    except Exception as error:
        return [f"DIOSCAR_FUNCTION: its module cannot be imported ({type(error).__name__}: {error})"]
    settings = [field.name.upper() for field in dataclasses.fields(function.settings)]
    used = function.models if isinstance(function, functions.Function) else ()
    models = [functions.model_variable(model) for model in used]
    found = []
    for name in variables:
        if name not in (*settings, *models, *OURS) and not OTHERS.fullmatch(name):
            close = difflib.get_close_matches(name.upper(), [*settings, *models, *OURS], n=1)
            known = ", ".join(settings) or "none"
            mend = f"did you mean {close[0]}?" if close else f"its settings are {known}"
            found.append(f"environment variable {name}: {function.name} has no such setting; {mend}")
    try:
        read_settings(function.settings, variables)
    except InputError as error:
        found.append(str(error))
    return found


def main() -> int:
    """Answer on what was standard output; what a module prints when it is imported goes to standard error."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with answer:
        json.dump({name: complaints(variables) for name, variables in json.load(sys.stdin).items()}, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
