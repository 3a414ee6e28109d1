"""`install`, `test`, `check`, `bench`: what a contributor needs."""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import click

from infra.cli.errors import DIOSCAR, CliError, Exit

HERE = Path(__file__).parents[2]
BENCHMARKS = "tests.benchmarks"
PARALLEL = ("-n", "auto", "--maxprocesses=4", "--dist=loadfile")
"""All tests run on several cores, file by file: most of their time is waiting. With arguments they are one process."""


@click.command()
@click.argument("extras", metavar="EXTRA...", nargs=-1)
def install(extras: tuple[str, ...]) -> None:
    """Add what some work needs beyond the core: train (torch), test, or a twin's name."""
    recorded = Path(sys.prefix, ".extras")
    present = recorded.read_text(encoding="utf-8").split() if recorded.is_file() else []
    missing = [extra for extra in extras if extra not in present]
    if missing:
        raise CliError(f"{', '.join(missing)}: install extras with the launcher, ./dioscar install {' '.join(missing)}")
    click.echo(f"Installed in {sys.prefix}: {', '.join(present) or 'the core'}")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--slow", is_flag=True, help="Also those that take minutes.")
@click.argument("arguments", metavar="[PYTEST ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
def test(slow: bool, arguments: tuple[str, ...]) -> int:
    """Run the tests; real files are looked for in DIOSCAR_TEST_DATA."""
    _in_checkout()
    if subprocess.run(["/bin/sh", "infra/supervisor-env.sh"], cwd=HERE, check=False).returncode:
        raise CliError("the real supervisor, which the contract is tested against, could not be installed")
    if subprocess.run(["/bin/sh", "infra/clients-env.sh"], cwd=HERE, check=False).returncode:
        click.echo("dioscar: aws CLI, s3fs and obstore are not there: tests with them are skipped", err=True)
    if not os.environ.get("DIOSCAR_TEST_DATA"):
        click.echo("dioscar: DIOSCAR_TEST_DATA is not set: tests on real telescope files are skipped", err=True)
    marks = [] if slow or any(argument.startswith("-m") for argument in arguments) else ["-m", "not slow"]
    return _run([sys.executable, "-P", "-m", "pytest", *marks, *(arguments or PARALLEL)])


@click.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended: layout, imports, simple slips.")
def check(fix: bool) -> None:
    """Check layout, lint, types and the import rules."""
    _in_checkout()
    steps = {
        "layout": ["ruff", "format", "--quiet", *([] if fix else ["--check"]), "."],
        "lint": ["ruff", "check", "--quiet", *(["--fix"] if fix else []), "."],
        "types": ["mypy", "--no-error-summary"],
        "house": ["pytest", "-q", "--no-header", "-p", "no:cacheprovider", "tests/test_house.py"],
    }
    failed = []
    for name, arguments in steps.items():
        command = [sys.executable, "-P", "-m", *arguments]
        done = subprocess.run(command, cwd=HERE, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        click.echo(f"{name:8}{'ok' if done.returncode == 0 else 'FAILED'}")
        if done.returncode:
            click.echo(done.stdout.decode(errors="replace").rstrip())
            failed.append(name)
    if failed:
        raise CliError(f"failed: {', '.join(failed)}" + ("" if fix else f"; {DIOSCAR} check --fix mends some of it"))


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name", required=False)
@click.argument("arguments", metavar="[ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
def bench(name: str | None, arguments: tuple[str, ...]) -> int:
    """Run a benchmark of tests/benchmarks, or list them."""
    _in_checkout()
    known = benchmarks()
    if name is None:
        for module, purpose in known.items():
            click.echo(f"{module:{max(map(len, known))}}  {purpose}")
        if not known:
            click.echo("There are no benchmarks yet.")
        return Exit.DONE
    if name not in known:
        raise CliError(f"there is no benchmark {name}; there are {', '.join(known) or 'none'}", Exit.NOT_FOUND)
    return _run([sys.executable, "-P", "-m", f"{BENCHMARKS}.{name}", *arguments])


def benchmarks() -> dict[str, str]:
    """Each benchmark with the first line of its docstring; modules that do not run are helpers."""
    import ast

    folder = HERE / "tests" / "benchmarks"
    found = {}
    for module in pkgutil.iter_modules([str(folder)]):
        source = (folder / f"{module.name}.py").read_text(encoding="utf-8")
        if "__main__" in source:
            found[module.name] = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
    return found


def _in_checkout() -> None:
    if not (HERE / "tests").is_dir() or not (HERE / "pyproject.toml").is_file():
        raise CliError(f"{HERE} is no checkout of the repository; clone it to develop")


def _run(command: list[str]) -> int:
    """Run with this terminal; the exit status is its own."""
    # the launcher did not call what runs
    environ = {name: value for name, value in os.environ.items() if name != "DIOSCAR_LAUNCHER"}
    return subprocess.run(command, cwd=HERE, env=environ, check=False).returncode
