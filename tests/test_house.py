"""The rules of the house hold, and each rule catches what it is there for."""

import subprocess
from pathlib import Path, PurePosixPath

import pytest

from tests.house import forbidden_words, heavy_imports, sources, wrong_imports

ROOT = Path(__file__).parents[1]
TEXTS = {".py", ".md", ".sh", ".yaml", ".yml", ".toml", ".cff", ".json", ".txt", ""}


def test_rooms_import_only_what_the_table_allows() -> None:
    assert [found for path, source in sources(ROOT) for found in wrong_imports(path, source)] == []


def test_nothing_heavy_is_imported_where_requests_are_served() -> None:
    assert [found for path, source in sources(ROOT) for found in heavy_imports(path, source)] == []


def test_no_text_speaks_of_how_it_came_about() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False).stdout.decode()
    names = listed.split("\0")[:-1] or [str(path) for path, _ in sources(ROOT)]
    found = [
        problem
        for name in names
        if Path(name).suffix in TEXTS and name != "tests/house.py" and (ROOT / name).is_file()
        for problem in forbidden_words(PurePosixPath(name), (ROOT / name).read_text(encoding="utf-8", errors="replace"))
        if name != "tests/test_house.py"
    ]
    assert found == []


def test_every_file_of_the_packages_is_imported_by_its_own_path() -> None:
    for path, _ in sources(ROOT):
        if path.parts[0] != "functions":
            assert (ROOT / path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"
    assert not (ROOT / "functions" / "__init__.py").exists(), "functions is a namespace package, users add to it"


@pytest.mark.parametrize(
    "path, source",
    [
        ("functions/pulsar/x.py", "import infra.local"),
        ("functions/pulsar/x.py", "from fdl.model import Service"),
        ("functions/pulsar/x.py", "def f():\n    from events import notifications"),
        ("functions/pulsar/x.py", "from functions.lattice import action"),
        ("functions/pulsar/x.py", "from . import frames"),
        ("layers/objects/x.py", "from layers.runtime import Job"),
        ("layers/objects/x.py", "from layers import runtime"),
        ("layers/runtime/x.py", "import layers.quality.gates"),
        ("layers/runtime/x.py", "from events import gather"),
        ("layers/quality/x.py", "from events.notifications import parse"),
        ("layers/quality/x.py", "from layers.learning import registry"),
        ("fdl/x.py", "from layers.runtime.forward import parse_forward"),
        ("events/x.py", "from layers.runtime import Job"),
        ("events/x.py", "import fdl.model"),
        ("infra/local/x.py", "import functions.pulsar.classify"),
        ("infra/local/x.py", "from functions import pulsar"),
        ("infra/local/x.py", "from tests.fdl import conftest"),
    ],
)
def test_a_forbidden_import_is_caught(path: str, source: str) -> None:
    assert list(wrong_imports(PurePosixPath(path), source))


@pytest.mark.parametrize(
    "path, source",
    [
        ("functions/pulsar/x.py", "from functions.pulsar.frames import Frame\nfrom layers.runtime import Job"),
        ("layers/runtime/x.py", "from layers.objects import client\nfrom events.notifications import parse"),
        ("layers/learning/x.py", "from layers.quality import gates"),
        ("fdl/x.py", "import yaml\nfrom fdl import names"),
        ("events/x.py", "from layers.objects.client import S3Client"),
        ("infra/local/x.py", "from fdl.model import Service\nfrom events import notifications\nimport layers.runtime"),
    ],
)
def test_an_allowed_import_is_let_through(path: str, source: str) -> None:
    assert list(wrong_imports(PurePosixPath(path), source)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import torch",
        "import matplotlib.pyplot as plt",
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
        "class A:\n    import pydantic",
        "if True:\n    from boto3 import client",
    ],
)
def test_a_heavy_import_at_the_top_is_caught(source: str) -> None:
    assert list(heavy_imports(PurePosixPath("functions/pulsar/classify.py"), source))


def test_a_heavy_import_where_it_is_used_is_let_through() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\ndef draw():\n    import matplotlib"
    assert list(heavy_imports(PurePosixPath("functions/pulsar/classify.py"), source)) == []
    assert list(heavy_imports(PurePosixPath("functions/pulsar/train.py"), "import torch")) == []
    assert list(heavy_imports(PurePosixPath("infra/local/x.py"), "import pydantic")) == []


@pytest.mark.parametrize(
    "text",
    ["see /root/x", "in /home/me/x", "# TODO later", "pip install --index-url http://x", "Issue #2 asks for it"],
)
def test_a_forbidden_word_is_caught(text: str) -> None:
    assert list(forbidden_words(PurePosixPath("README.md"), text))


def test_ordinary_words_are_let_through() -> None:
    text = "a network of/work/home, an issue of the journal, /var/root.txt, 3 issues"
    assert list(forbidden_words(PurePosixPath("README.md"), text)) == []
