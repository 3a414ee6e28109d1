"""The group of all commands, and the one place where an error becomes a sentence and an exit status."""

import os
import sys
from importlib.metadata import version

import click

from infra.cli import cluster, deploy, develop, doctor, hpc, jobs, mend, models, objects, removal, replay, schedule
from infra.cli.demo import command as demo
from infra.cli.errors import CliError, Exit

SECTIONS = {
    "First steps": (demo.demo, doctor.doctor),
    "The cluster": (cluster.up, cluster.down, cluster.status, cluster.config),
    "Services": (deploy.plan, deploy.apply, removal.delete),
    "Data": (objects.ls, objects.mb, objects.put, objects.get, removal.rm),
    "Work": (jobs.invoke, jobs.jobs, jobs.logs),
    "By itself": (schedule.schedule,),
    "Models": (models.models,),
    "When something went wrong": (replay.replay, mend.cancel, mend.backup),
    "An HPC site": (hpc.hpc_plugin,),
    "Development": (develop.install, develop.test, develop.check, develop.bench),
}


class Commands(click.Group):
    """A group whose help lists its commands by what a person wants to do."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each purpose."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(command.name), command.get_short_help_str(80)) for command in commands])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("dioscar"), prog_name="dioscar")
def dioscar() -> None:
    """Serverless digital twins of physics experiments, on this machine or on an OSCAR cluster."""


for _commands in SECTIONS.values():
    for _command in _commands:
        dioscar.add_command(_command)


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; the exit status is one of `infra.cli.errors.Exit`."""
    try:
        result = dioscar.main(arguments, prog_name="dioscar", standalone_mode=False)
        return result if isinstance(result, int) else Exit.DONE
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("dioscar: interrupted", err=True)
        return Exit.INTERRUPTED
    except BrokenPipeError:  # `dioscar ls | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.DONE
    except Exception as error:
        message, status = _explain(error)
        click.echo(f"dioscar: {message}", err=True)
        return status


def _explain(error: Exception) -> tuple[str, Exit]:
    """The sentence and the status of whatever a command raised."""
    if isinstance(error, CliError):
        return str(error), error.status
    if "fdl.errors" in sys.modules:
        from fdl.errors import ClusterError, CredentialsError, FdlError, UnreachableError

        statuses = {
            UnreachableError: Exit.UNREACHABLE,
            CredentialsError: Exit.REFUSED,
            ClusterError: Exit.FAILED,
            FdlError: Exit.BAD_INPUT,
        }
        for kind, status in statuses.items():
            if isinstance(error, kind):
                return str(error), status
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}", Exit.NOT_FOUND if isinstance(error, FileNotFoundError) else Exit.FAILED
    if os.environ.get("DIOSCAR_TRACEBACK"):
        raise error
    sentence = " ".join(str(error).split()) or "no more is known"
    return f"{type(error).__name__}: {sentence} (set DIOSCAR_TRACEBACK=1 to see where)", Exit.FAILED
