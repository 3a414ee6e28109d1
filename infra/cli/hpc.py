"""`hpc-plugin`: the interLink plugin of an HPC site."""

from pathlib import Path

import click

from infra.cli.errors import CliError, Exit


@click.command("hpc-plugin")
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="The settings, in YAML (docs/hpc.md).",
)
@click.option("--check", "only_check", is_flag=True, help="Say what there is, and end.")
def hpc_plugin(config: Path | None, only_check: bool) -> int:
    """Run pods as batch jobs: an interLink plugin for Slurm."""
    from infra.hpc.settings import SettingsError, load

    try:
        settings = load(config)
    except SettingsError as error:
        raise CliError(str(error), Exit.BAD_INPUT) from None
    from infra.hpc.server import StartError, check, serve

    try:
        if only_check:
            for line in check(settings):
                click.echo(line)
        else:
            serve(settings, click.echo)
    except StartError as error:
        raise CliError(str(error), Exit.UNREACHABLE if only_check else Exit.FAILED) from None
    return Exit.DONE
