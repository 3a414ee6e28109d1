"""OpenTelemetry: one trace per raw file, from its upload through every job of its chain.

On where `OTEL_EXPORTER_OTLP_ENDPOINT` is set. A raw object's trace follows from the object itself, so that all services
that it triggers are in one; objects that jobs make carry their trace in the metadata `dioscar-trace` (W3C traceparent).
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from infra.local.executors import Ended
from infra.local.jobs import Job
from infra.local.objects import StoredObject

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
METADATA = "dioscar-trace"
REMEMBERED = 4096
"""Raw objects whose upload is told only once, though several services run on them."""
_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


class TracingUnavailable(Exception):  # noqa: N818 - a state, said plainly
    """Traces are asked for and the libraries for them are not installed."""


class Attempt:
    """The span of one attempt; without one, nothing is told and nothing is carried on."""

    def __init__(self, span: "Span | None" = None) -> None:
        self._span = span

    @property
    def metadata(self) -> Mapping[str, str]:
        """What an object that this attempt makes carries on."""
        if self._span is None:
            return {}
        context = self._span.get_span_context()
        return {METADATA: f"00-{context.trace_id:032x}-{context.span_id:016x}-01"}

    def ended(self, ended: Ended, reason: str) -> None:
        """How the attempt ended."""
        if self._span is None:
            return
        from opentelemetry.trace import Status, StatusCode

        self._span.set_attribute("dioscar.exit_code", int(ended.code))
        self._span.set_attribute("dioscar.run_key", ended.run_key)
        self._span.set_status(Status(StatusCode.ERROR, reason) if ended.code else Status(StatusCode.OK))


class Tracing:
    """Makes spans in the event loop's thread, sends them from another in batches, and drops what cannot be sent."""

    def __init__(self, provider: "TracerProvider", cluster: str) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("dioscar", version("dioscar"))
        self._cluster = cluster
        self._uploads: OrderedDict[int, None] = OrderedDict()

    @contextmanager
    def attempt(self, job: Job, stored: StoredObject | None) -> Iterator["Attempt"]:
        """The span of an attempt of `job` on the object `stored`."""
        attributes: dict[str, str | int] = {
            "dioscar.service": job.service,
            "dioscar.job": job.id,
            "dioscar.bucket": job.bucket,
            "dioscar.key": job.key,
            "dioscar.attempt": job.attempt + 1,
        }
        span = self._tracer.start_span(job.service, self._parent(stored), attributes=attributes)
        try:
            yield Attempt(span)
        finally:
            span.end()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _parent(self, stored: StoredObject | None) -> "Context | None":
        """The span that an attempt belongs below: of the job that made its input, or of the upload."""
        if stored is None:
            return None
        match = _PARENT.fullmatch(stored.metadata.get(METADATA, ""))
        if match:
            return _context(int(match[1], 16), int(match[2], 16))
        digest = hashlib.sha256(f"{self._cluster}/{stored.id}".encode()).digest()
        trace, span = int.from_bytes(digest[:16]), int.from_bytes(digest[16:24])
        if stored.id not in self._uploads:
            self._upload(stored, trace, span)
        self._uploads[stored.id] = None
        while len(self._uploads) > REMEMBERED:
            self._uploads.popitem(last=False)
        return _context(trace, span)

    def _upload(self, stored: StoredObject, trace: int, span: int) -> None:
        """The root of a trace: a moment, when the object had been stored."""
        from opentelemetry.context import Context

        moment = int(stored.modified * 1e9)
        attributes: dict[str, str | int] = {
            "dioscar.bucket": stored.bucket,
            "dioscar.key": stored.key,
            "dioscar.size": stored.size,
        }
        self._provider.id_generator.preset = (trace, span)  # type: ignore[attr-defined]
        self._tracer.start_span("upload", Context(), attributes=attributes, start_time=moment).end(moment)


def from_environment(environ: Mapping[str, str], cluster: str) -> Tracing | None:
    """Tracing, if an endpoint is set. Raises TracingUnavailable where its libraries are not installed."""
    if not environ.get(ENDPOINT):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise TracingUnavailable(
            f"{ENDPOINT} is set, but opentelemetry is not installed; run ./dioscar install trace, or unset it"
        ) from None
    resource = Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME") or "dioscar"})
    provider = TracerProvider(resource=resource, id_generator=_id_generator())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider, cluster)


def _context(trace: int, span: int) -> "Context":
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    parent = SpanContext(trace, span, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return set_span_in_context(NonRecordingSpan(parent))


def _id_generator() -> Any:
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Ids(RandomIdGenerator):
        """Random, but for the root of a raw object's trace, whose two are preset."""

        preset: tuple[int, int] | None = None

        def generate_trace_id(self) -> int:
            return self.preset[0] if self.preset else super().generate_trace_id()

        def generate_span_id(self) -> int:
            preset, self.preset = self.preset, None
            return preset[1] if preset else super().generate_span_id()

    return Ids()
