"""`python -P -m infra.local`: the embedded cluster in the foreground."""

import argparse
import sys
from pathlib import Path

from infra.local.cluster import ClusterError, ClusterSettings, serve
from infra.local.database import DatabaseError
from infra.local.interlink.nodes import NodesError
from infra.local.settings import Address
from infra.local.tracing import TracingUnavailable

WRONG_INPUT = 65


def main() -> int:
    """Serve until stopped; 1 (65 for a file that is wrong) with a sentence where it cannot start."""
    parser = argparse.ArgumentParser(prog="dioscar up", description="An OSCAR cluster in one process.")
    parser.add_argument("--data", type=Path, default=Path("dioscar-data"))
    parser.add_argument("--api", default="127.0.0.1:8080", metavar="HOST:PORT")
    parser.add_argument("--s3", default="127.0.0.1:9000", metavar="HOST:PORT")
    parser.add_argument("--s3-advertise", default="", metavar="URL")
    parser.add_argument("--s3-external", default="", metavar="URL")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    try:
        settings = ClusterSettings(
            arguments.data,
            Address.parse(arguments.api),
            Address.parse(arguments.s3),
            arguments.s3_advertise,
            arguments.log_format,
            arguments.s3_external,
        )
        serve(settings)
    except (ClusterError, DatabaseError, TracingUnavailable, ValueError) as error:
        print(f"dioscar: {error}", file=sys.stderr)  # noqa: T201 - a command's answer
        return WRONG_INPUT if isinstance(error, NodesError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
