"""What the administrator sets while the cluster runs."""

import json
import sqlite3
from collections.abc import Sequence

from infra.local.database import Database

IMAGES = "allowed_image_repositories"


class Configuration:
    """The images that services may have; held in memory and kept in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        row = database.read.execute("SELECT value FROM meta WHERE name = ?", (IMAGES,)).fetchone()
        self.images: Sequence[str] = [] if row is None else json.loads(row[0])

    def takes(self, image: str) -> bool:
        """Whether a service may have this image: all of them, or those whose name has an allowed repository in it."""
        return not self.images or any(repository in image for repository in self.images)

    async def set_images(self, repositories: Sequence[str]) -> None:
        """Take images of these repositories only; of all where there are none."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (IMAGES, json.dumps(repositories)))
            self._database.after_commit(lambda: setattr(self, "images", repositories))

        await self._database.write(work)
