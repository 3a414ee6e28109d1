"""OSCAR's routes below `/system`, but for jobs' logs: each with its method, its path and who answers it."""

from collections.abc import Sequence

from infra.local.api.authentication import Handler
from infra.local.api.buckets import BucketRoutes
from infra.local.api.configuration import ConfigurationRoutes
from infra.local.api.deployment import DeploymentRoutes
from infra.local.api.federation import FederationRoutes
from infra.local.api.information import info
from infra.local.api.metrics import MetricsRoutes
from infra.local.api.presign import PresignRoutes
from infra.local.api.quotas import QuotaRoutes
from infra.local.api.services import ServiceRoutes
from infra.local.api.status import StatusRoutes
from infra.local.api.system_logs import SystemLogRoutes
from infra.local.api.volumes import VolumeRoutes
from infra.local.engine import Engine
from infra.local.holdings import Holdings
from infra.local.settings import Credentials, StoreAddress
from infra.local.users.users import Users
from layers.objects import sigv4

System = Sequence[tuple[str, str, Handler]]


def oscar_routes(
    engine: Engine,
    holdings: Holdings,
    deployments: DeploymentRoutes,
    credentials: Credentials,
    address: StoreAddress,
    users: Users | None = None,
    *,
    elsewhere: bool,
) -> System:
    """The routes; `elsewhere` where the cluster's objects are in another store."""
    keys = sigv4.Credentials(credentials.minio_access_key, credentials.minio_secret_key)
    configuration = ConfigurationRoutes(
        holdings.configuration, credentials, address, users, interlink=engine.interlink is not None
    )
    services = ServiceRoutes(engine, address, holdings, deployments)
    buckets = BucketRoutes(engine, holdings.quotas, address.endpoint if elsewhere else "")
    presign = PresignRoutes(engine, keys, address, elsewhere=elsewhere)
    volumes = VolumeRoutes(holdings.volumes)
    quotas = QuotaRoutes(holdings.quotas)
    metrics = MetricsRoutes(holdings.calls, engine.services)
    federation = FederationRoutes(engine.services)
    service = "/system/services/{service}"
    return [
        ("GET", "/system/info", info),
        ("GET", "/system/config", configuration.read),
        ("PUT", "/system/config", configuration.update),
        ("GET", "/system/status", StatusRoutes(engine, users).status),
        ("GET", "/system/services", services.list),
        ("POST", "/system/services", services.create),
        ("PUT", "/system/services", services.update),
        ("GET", service, services.read),
        ("DELETE", service, services.delete),
        ("GET", f"{service}/deployment", deployments.status),
        ("GET", f"{service}/deployment/logs", deployments.logs),
        ("GET", "/system/buckets", buckets.every),
        ("POST", "/system/buckets", buckets.create),
        ("PUT", "/system/buckets", buckets.update),
        ("GET", "/system/buckets/{bucket}", buckets.read),
        ("DELETE", "/system/buckets/{bucket}", buckets.delete),
        ("POST", "/system/buckets/{bucket}/presign", presign.presign),
        ("GET", "/system/volumes", volumes.list),
        ("POST", "/system/volumes", volumes.create),
        ("GET", "/system/volumes/{volume}", volumes.read),
        ("DELETE", "/system/volumes/{volume}", volumes.delete),
        ("GET", "/system/quotas/user", quotas.own),
        ("GET", "/system/quotas/user/{user}", quotas.read),
        ("PUT", "/system/quotas/user/{user}", quotas.update),
        ("GET", "/system/metrics", metrics.summary),
        ("GET", "/system/metrics/breakdown", metrics.breakdown),
        ("GET", "/system/metrics/{service}", metrics.service),
        ("GET", "/system/federation/{service}", federation.read),
        *((method, "/system/federation/{service}", federation.change) for method in ("POST", "PUT", "DELETE")),
        ("GET", "/system/logs", SystemLogRoutes(holdings.calls).list),
    ]
