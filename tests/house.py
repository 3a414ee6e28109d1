"""The rules of the house, as functions of source text, so that each can be shown to catch a violation."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

LAYERS = ("objects", "runtime", "quality", "learning")
"""Lowest first; a layer imports those before it."""

ROOMS = ("functions", "layers", "fdl", "events", "infra")

MAY_IMPORT = {
    "functions": ("functions", "layers"),
    "fdl": ("fdl",),
    "events": ("events", "layers.objects"),
    "infra": ("infra", "fdl", "events", "layers"),
    **{f"layers.{layer}": tuple(f"layers.{lower}" for lower in LAYERS[: n + 1]) for n, layer in enumerate(LAYERS)},
}
EXCEPTIONS = {("layers.runtime", "events.notifications")}
"""The module that parses MinIO's event does so once, for the cluster and for the runtime."""

HEAVY = (
    *("torch", "uproot", "gwpy", "matplotlib", "boto3", "pydantic", "onnx", "scipy", "sklearn", "pandas"),
    *("awkward", "optuna", "tensorboard"),
)
"""What serving a request must not pay for; imported inside the function that needs it."""

TRAINING = re.compile(r"functions/\w+/((train|network)\w*|learners/[\w/]+)\.py|layers/learning/.*")
"""Modules that no request is served by: they train, and may begin with torch."""

FORBIDDEN = (
    r"(?<![\w.])/(?:work|home/\w+|root)/",  # one machine's folders
    r"--(?:extra-)?index-url|--find-links",  # one site's package host
    r"(?i)\bissue #?\d+",
    r"\b(?:TODO|FIXME|XXX)\b",
)


def imports(source: str) -> Iterator[tuple[int, str, bool]]:
    """Each imported module with its line, and whether the import runs when the module is imported."""
    tree = ast.parse(source)
    yield from _imports(tree, at_top=True)


def _imports(node: ast.AST, *, at_top: bool) -> Iterator[tuple[int, str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for name in child.names:
                yield child.lineno, name.name, at_top
        elif isinstance(child, ast.ImportFrom):
            if child.level:
                yield child.lineno, "." * child.level, at_top
            elif child.module in ROOMS or child.module == "layers":
                for name in child.names:
                    yield child.lineno, f"{child.module}.{name.name}", at_top
            else:
                yield child.lineno, str(child.module), at_top
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            yield from _imports(child, at_top=False)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(child, at_top=at_top and not inside)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def room_of(path: PurePosixPath) -> str:
    """The room a file stands in; each layer is one of its own."""
    return ".".join(path.parts[:2]) if path.parts[0] == "layers" and len(path.parts) > 2 else path.parts[0]


def wrong_imports(path: PurePosixPath, source: str) -> Iterator[str]:
    """Imports that the table of rooms does not allow."""
    room = room_of(path)
    for line, module, _ in imports(source):
        if module.startswith("."):
            yield f"{path}:{line}: a relative import; write the whole path"
        if module.split(".")[0] not in (*ROOMS, "tests"):
            continue
        allowed = any(_below(module, prefix) for prefix in MAY_IMPORT.get(room, ()))
        excepted = any(room == user and _below(module, used) for user, used in EXCEPTIONS)
        if not allowed and not excepted:
            yield f"{path}:{line}: {room} may not import {module}"
        if room == "functions" and module.startswith("functions.") and module.split(".")[1:2] != [path.parts[1]]:
            yield f"{path}:{line}: a twin may not import another one ({module})"


def heavy_imports(path: PurePosixPath, source: str) -> Iterator[str]:
    """Heavy imports that run when a module of functions or layers is imported."""
    if path.parts[0] not in ("functions", "layers") or TRAINING.fullmatch(str(path)):
        return
    for line, module, at_top in imports(source):
        if at_top and module.split(".")[0] in HEAVY:
            yield f"{path}:{line}: imports {module} at its top; import it where it is used"


def forbidden_words(path: PurePosixPath, text: str) -> Iterator[str]:
    """Words that say something about how the text came about, and nothing to its reader."""
    for number, line in enumerate(text.splitlines(), 1):
        for pattern in FORBIDDEN:
            match = re.search(pattern, line)
            if match:
                yield f'{path}:{number}: holds "{match.group()}"'


def _below(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def sources(root: Path) -> Iterator[tuple[PurePosixPath, str]]:
    """Every Python file of the rooms."""
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")):
            yield PurePosixPath(path.relative_to(root).as_posix()), path.read_text(encoding="utf-8")
