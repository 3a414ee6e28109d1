"""What a cluster keeps beside objects and jobs: its configuration, volumes, quotas, and who called what."""

from dataclasses import dataclass
from pathlib import Path

from infra.local.calls import Calls
from infra.local.configuration import Configuration
from infra.local.database import Database
from infra.local.objects import ObjectStore
from infra.local.quotas import Quotas
from infra.local.services import Services
from infra.local.volumes import Volumes


@dataclass(frozen=True)
class Holdings:
    """The parts that routes share."""

    configuration: Configuration
    volumes: Volumes
    quotas: Quotas
    calls: Calls

    @classmethod
    def of(cls, data: Path, database: Database, store: ObjectStore, services: Services) -> "Holdings":
        """Those of one data folder."""
        volumes = Volumes(data, database, services)
        return cls(Configuration(database), volumes, Quotas(database, store, services, volumes), Calls(database))
