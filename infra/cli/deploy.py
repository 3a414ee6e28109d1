"""`plan` and `apply`: from FDL files to a cluster."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.cli.errors import CliError, Exit
from infra.cli.nodes import missing_nodes
from infra.cli.output import console, json_option, print_json, progress
from infra.cli.preflight import preflight
from infra.cli.target import Target, cluster_option, target

if TYPE_CHECKING:
    from fdl.document import Document
    from fdl.plan import Instruction

_FDL_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_DONE = {"create": "created", "update": "updated", "unchanged": "unchanged"}
_COLOURS = {"create": "green", "update": "yellow", "unchanged": "dim"}


def _fdl_options(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--prefix", metavar="NAME", help="Deploy as NAME-<service>, with buckets of its own."),
        click.option("--registry", metavar="REGISTRY", help="Take the project's images (dioscar-*) from here."),
        click.option("--tag", metavar="TAG", help="Take the project's images with this tag."),
        click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FDL_FILE),
    ):
        function = option(function)
    return function


@click.command()
@_fdl_options
@cluster_option
@click.option(
    "--split",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write one FDL file for each service here, for clients that deploy one at a time; needs no cluster.",
)
@json_option
def plan(
    files: tuple[Path, ...],
    cluster: str | None,
    registry: str | None,
    tag: str | None,
    prefix: str | None,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Show what `apply` would do, field by field, and the chain."""
    from fdl.graph import draw

    if folder is not None:
        from fdl.split import split

        name = cluster if cluster and re.fullmatch(r"[\w-]+", cluster) else None
        documents = _documents(files, registry, tag, prefix, name)
        written = [path for document in documents for path in split(document, folder)]
        if as_json:
            print_json({"files": [str(path) for path in written]})
        else:
            click.echo("\n".join(map(str, written)))
        return
    there = target(cluster)
    documents = _documents(files, registry, tag, prefix, there.endpoint.cluster_id)
    graphs = [draw(document) for document in documents]
    instructions = _instructions(documents, there.client)
    doubts = _doubts(documents, instructions, there)
    if as_json:
        print_json(
            {
                "cluster": there.url,
                "instructions": [step.to_json() for step in instructions],
                "graphs": [{"file": graph.file, **graph.to_json()} for graph in graphs],
                "warnings": [*(warning for graph in graphs for warning in graph.warnings()), *doubts],
            }
        )
        return
    for graph in graphs:
        click.echo(graph.tree())
        _warn(graph.warnings())
    _warn(doubts)
    click.echo()
    for step in instructions:
        _print_step(step)
    changed = sum(step.action != "unchanged" for step in instructions)
    click.echo(f"{changed} of {len(instructions)} services would change on {there.url}.")


@click.command()
@_fdl_options
@cluster_option
@json_option
def apply(
    files: tuple[Path, ...],
    cluster: str | None,
    registry: str | None,
    tag: str | None,
    prefix: str | None,
    as_json: bool,
) -> None:
    """Deploy the services of FDL files, each on its own."""
    from fdl.apply import apply as carry_out
    from fdl.apply import make_registries
    from fdl.forward import REGISTRY
    from fdl.graph import draw

    there = target(cluster)
    documents = _documents(files, registry, tag, prefix, there.endpoint.cluster_id)
    graphs = [draw(document) for document in documents]
    for graph in graphs:
        _warn(graph.warnings())
    instructions = _instructions(documents, there.client)
    _warn(_doubts(documents, instructions, there))
    with progress() as bar:
        results = list(bar.track(carry_out(instructions, there.client), len(instructions), description="apply"))
    registries = {bucket for graph in graphs for bucket in graph.registries}
    if there.endpoint.oidc_token:  # a user makes none under the name of the one that is everybody's
        registries.discard(REGISTRY)
    _warn(make_registries(registries, there.client))
    failed = [result for result in results if result.error]
    if as_json:
        print_json([{"service": r.service, "action": r.action, "error": r.error} for r in results])
    else:
        for result in results:
            if result.error is None:
                click.echo(f"{result.service} {_DONE[result.action]}")
    for result in failed:
        click.echo(f"dioscar: {result.service}: {result.error}", err=True)
    if failed:
        raise CliError(f"{len(failed)} of {len(results)} services could not be deployed")


def _documents(
    files: tuple[Path, ...], registry: str | None, tag: str | None, prefix: str | None, cluster_id: str | None
) -> list["Document"]:
    from fdl.document import read_file
    from fdl.overrides import override

    documents = [
        override(read_file(file), registry=registry, tag=tag, prefix=prefix, cluster_id=cluster_id) for file in files
    ]
    owner: dict[str, str] = {}
    for document in documents:
        for service in document.services:
            if service.name in owner:
                raise CliError(
                    f"{document.file}: the service {service.name} stands in {owner[service.name]} too; rename one",
                    Exit.BAD_INPUT,
                )
            owner[service.name] = document.file
    return documents


def _instructions(documents: list["Document"], client: Any) -> list["Instruction"]:
    from fdl.apply import services_on
    from fdl.plan import plan as make_plan

    state: Mapping[str, Mapping[str, Any]] = services_on(client)
    return [step for document in documents for step in make_plan(document, state)]


def _doubts(documents: list["Document"], instructions: list["Instruction"], there: Target) -> tuple[str, ...]:
    """Annotations that nobody reads; and of services that would change, nodes and variables that are not there."""
    from fdl.slurm import annotation_warnings

    changed = [step.service for step in instructions if step.action != "unchanged"]
    annotations = (warning for document in documents for warning in annotation_warnings(document))
    return (*annotations, *missing_nodes(changed, there), *preflight(changed))


def _print_step(step: "Instruction") -> None:
    from rich.text import Text

    console().print(Text.assemble((f"{step.action:10}", _COLOURS[step.action]), step.service.name))
    for change in step.changes:
        click.echo(f"{'':12}{change.field}: {_brief(change.before)} -> {_brief(change.after)}")


def _brief(value: Any) -> str:
    if value is None:
        return "(nothing)"
    text = str(value)
    if "\n" in text:
        return f"({len(text.splitlines())} lines)"
    return text if len(text) <= 60 else text[:57] + "..."


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
