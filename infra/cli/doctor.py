"""`doctor`: whether everything that DiOSCAR needs is here, and ours."""

import importlib.metadata
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from infra.cli import embedded
from infra.cli.errors import DIOSCAR, CliError
from infra.cli.output import console, human_size, json_option, print_json

HERE = Path(__file__).parents[2]
ROOMS = ("functions", "layers", "fdl", "events", "infra")
LEAST_DISK = 2 * 2**30
Verdict = Literal["ok", "note", "wrong"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do about it."""

    verdict: Verdict
    what: str
    detail: str


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check this machine: Python, packages, names, ports, disk, and what is optional."""
    findings = list(examine())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        from rich.text import Text

        colours = {"ok": "green", "note": "yellow", "wrong": "red"}
        for finding in findings:
            line = Text.assemble(
                (f"{finding.verdict:6}", colours[finding.verdict]), f"{finding.what:20}{finding.detail}"
            )
            console().print(line)
    wrong = [finding.what for finding in findings if finding.verdict == "wrong"]
    if wrong:
        raise CliError(f"to be mended: {', '.join(wrong)}")


def examine() -> Iterator[Finding]:
    """Every check, in the order in which a newcomer would stumble."""
    yield _python()
    yield _packages()
    yield from map(room, ROOMS)
    yield _shell()
    yield _disk()
    yield from _cluster()
    yield _test_data()
    yield from _optional()


def room(name: str, root: Path = HERE) -> Finding:
    """Whether a top-level name is this project's, or some other package's that would be imported instead."""
    spec = importlib.util.find_spec(name)
    places = [Path(place).resolve() for place in (spec.submodule_search_locations or [])] if spec else []
    ours = (root / name).resolve()
    if ours in places and (places[0] == ours or name == "functions"):
        more = [str(place) for place in places if place != ours]
        return Finding("ok", f"import {name}", f"{ours}" + (f", and {', '.join(more)}" if more else ""))
    found = ", ".join(map(str, places)) or (spec.origin if spec else None) or "nothing"
    return Finding(
        "wrong", f"import {name}", f"finds {found} instead of {ours}; remove the other from this environment"
    )


def _python() -> Finding:
    detail = f"{sys.version.split()[0]} in {sys.prefix}"
    if not sys.flags.safe_path:
        return Finding("note", "python", f"{detail}; started without -P, so the current folder may shadow packages")
    return Finding("ok", "python", detail)


def _packages() -> Finding:
    from packaging.requirements import Requirement

    problems, count = [], 0
    for text in importlib.metadata.requires("dioscar") or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if problems:
        return Finding("wrong", "packages", "; ".join(problems) + f"; remove .venv and run {DIOSCAR} again")
    return Finding("ok", "packages", f"the core's {count}")


def _shell() -> Finding:
    shell = shutil.which("sh")
    if shell is None:
        return Finding("wrong", "sh", "is not on PATH; functions are started by it")
    script = HERE / "fdl" / "function.sh"
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, check=False)
    if done.returncode:
        return Finding("wrong", "sh", f"{shell} cannot read {script}: {done.stderr.decode(errors='replace').strip()}")
    return Finding("ok", "sh", shell)


def _disk() -> Finding:
    folder = embedded.data_folder().absolute()
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if not os.access(there, os.W_OK):
        return Finding("wrong", "disk", f"{there} cannot be written; set DIOSCAR_DATA to a folder of yours")
    detail = f"{human_size(free)} free for {folder}"
    if free < LEAST_DISK:
        return Finding("note", "disk", f"{detail}; an observation may need more")
    return Finding("ok", "disk", detail)


def _cluster() -> Iterator[Finding]:
    folder = embedded.data_folder()
    running = embedded.find(folder)
    if running is not None:
        yield Finding("ok", "cluster", f"runs on {folder}: API {running.api}, object store {running.s3}")
        return
    yield Finding("ok", "cluster", f"none runs on {folder}")
    for name, port in (("API", 8080), ("object store", 9000)):
        free = port_is_free(port)
        detail = (
            "free"
            if free
            else f"in use; start with another, e.g. {DIOSCAR} up --{'api' if port == 8080 else 's3'} 127.0.0.1:0"
        )
        yield Finding("ok" if free else "note", f"port {port}", f"{name}: {detail}")


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _test_data() -> Finding:
    folder = os.environ.get("DIOSCAR_TEST_DATA")
    if not folder:
        return Finding("note", "DIOSCAR_TEST_DATA", "is not set; tests on real telescope files are skipped")
    if not Path(folder).is_dir():
        return Finding("wrong", "DIOSCAR_TEST_DATA", f"{folder} is no folder; correct or unset it")
    return Finding("ok", "DIOSCAR_TEST_DATA", folder)


def _optional() -> Iterator[Finding]:
    for module, purpose, mend in (
        ("torch", "training", f"{DIOSCAR} install train"),
        ("matplotlib", "pictures", f"{DIOSCAR} install calorimeter pulsar"),
        ("pytest", "tests", f"{DIOSCAR} install test"),
    ):
        try:
            yield Finding("ok", module, f"{importlib.metadata.version(module)}, for {purpose}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("note", module, f"is not installed; for {purpose}: {mend}")
    for program, purpose in (("bwrap", "functions in a sandbox"), ("podman", "functions in containers")):
        path = shutil.which(program)
        yield Finding(
            "ok" if path else "note", program, path or f"is not installed; for {purpose}: infra/sandbox-env.sh"
        )
