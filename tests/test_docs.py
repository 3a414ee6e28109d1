"""What the texts say is so: links lead somewhere, commands exist, the example runs, versions agree."""

import json
import re
import runpy
import textwrap
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from infra.cli.main import dioscar
from layers.runtime.parameters import read_settings

ROOT = Path(__file__).parents[1]
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("functions/*/*.md")])
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_within_the_repository_lead_to_a_file(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_exist_with_the_options_that_they_are_shown_with(path: Path) -> None:
    for line in re.findall(r"\./dioscar ([a-z][^\n`|#]*)", path.read_text(encoding="utf-8")):
        name, *rest = line.split()
        command = dioscar.commands.get(name.rstrip(".,;:"))
        if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            command = command.commands.get(rest.pop(0).rstrip(".,;:"))
        assert command is not None, f"{path.name}: ./dioscar {line}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        for word in rest:
            if word.startswith("-"):
                assert word.rstrip(".,;:)") in known, f"{path.name}: ./dioscar {line}"


def test_the_example_of_a_function_works(tmp_path: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r'(    """Count the lines.*?)\n\n(?=\S)', text, re.DOTALL)
    assert block
    (tmp_path / "count.py").write_text(textwrap.dedent(block.group(1)))
    function = runpy.run_path(str(tmp_path / "count.py"))
    source = tmp_path / "some.txt"
    source.write_text("a\n\nb\n")
    for skip, count in (("true", "2"), ("false", "3")):
        function["run"](source, tmp_path, read_settings(function["Settings"], {"SKIP_EMPTY": skip}))
        assert (tmp_path / "some.txt.count.txt").read_text() == f"{count}\n"


def test_the_version_is_the_same_everywhere() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == VERSION
    assert json.loads((ROOT / "codemeta.json").read_text())["version"] == VERSION
    for path in (ROOT / "fdl").glob("*.yaml"):
        assert set(re.findall(r"image: \S+:(\S+)", path.read_text())) == {VERSION}


def test_every_dependency_is_pinned() -> None:
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "infra/constraints.txt").read_text().splitlines()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    for requirement in wanted:
        name = re.split(r"[<>=!~ \[]", requirement)[0].lower().replace("_", "-")
        assert name in pinned, f"{name} has no line in infra/constraints.txt"
