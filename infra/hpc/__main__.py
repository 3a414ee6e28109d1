"""`python -P -m infra.hpc`: the interLink plugin."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.hpc.settings import SettingsError, load


def main(argv: Sequence[str] | None = None) -> int:
    """Run the plugin, or check what it would run with; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -P -m infra.hpc", description="An interLink plugin for batch systems."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the settings, in YAML")
    parser.add_argument("--check", action="store_true", help="say what there is, and end")
    arguments = parser.parse_args(argv)
    if arguments.config is not None and not arguments.config.is_file():
        parser.error(f"{arguments.config}: is no file")
    try:
        settings = load(arguments.config)
    except SettingsError as error:
        print(f"dioscar: {error}", file=sys.stderr)  # noqa: T201 - a program's last words
        return 65
    from infra.hpc.server import StartError, check, serve

    try:
        if arguments.check:
            print("\n".join(check(settings)))  # noqa: T201
        else:
            serve(settings)
    except StartError as error:
        print(f"dioscar: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
