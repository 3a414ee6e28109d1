"""`python -P -m tests.infra.local.next_version`: a cluster as it might be one version later."""

import sqlite3
import sys

from infra.local import migrations


def annotate(connection: sqlite3.Connection) -> None:
    """A new column, filled from others, and an index of the same name on something else."""
    connection.execute("ALTER TABLE jobs ADD COLUMN note TEXT NOT NULL DEFAULT ''")
    connection.execute("UPDATE jobs SET note = service || ' had ' || key")
    connection.execute("DROP INDEX jobs_of_bucket")
    connection.execute("CREATE INDEX jobs_of_bucket ON jobs (bucket, key, seq)")


if __name__ == "__main__":
    migrations.MIGRATIONS = (*migrations.MIGRATIONS, annotate)  # before anybody has looked
    from infra.local.__main__ import main

    sys.exit(main())
