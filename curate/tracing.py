"""Spans of a run for OpenTelemetry, where somebody collects them; elsewhere nothing is loaded and nothing is done.

Asked for by the usual variables (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_EXPORTER`` …), or by a program that has
set a tracer provider, as ``opentelemetry-instrument`` does. The SDK and its exporter are not installed with us: without
them a warning says what is missing, and the work goes on.
"""

from __future__ import annotations

import contextvars
import importlib
import logging
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from curate import __version__

logger = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""Protocol -> name under which its exporter is installed; the first that is there where nobody chooses."""

Note = Callable[..., None]
"""Adds attributes to a span, by name."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Where in a trace we are, small enough to be handed to a worker with its work."""

    run: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """As they would go with a request, ``traceparent`` among them; empty where nothing is traced."""


_here: contextvars.ContextVar[str] = contextvars.ContextVar("run", default="")


@cache
def run_id() -> str:
    """Name of this process' run, for log lines and spans: ``CURATE_RUN``, or made up."""
    return os.environ.get("CURATE_RUN") or uuid.uuid4().hex


def here() -> Trace:
    """Where we are, for spans of other threads and processes."""
    if _tracer() is None:
        return Trace()
    headers: dict[str, str] = {}
    _import("propagate").inject(headers)
    return Trace(_here.get(), tuple(headers.items()))


@contextmanager
def traced(name: str, run: str) -> Iterator[None]:
    """A run as a span, above those of the block; a run within another keeps the name of that one.

    What was collected is sent at its end.
    """
    token = _here.set(_here.get() or run)
    try:
        with span(name):
            yield
    finally:
        _here.reset(token)
        flush()


@contextmanager
def span(name: str, under: Trace | None = None, **attributes: str | int) -> Iterator[Note]:
    """A block as a span; what it raises is recorded in it. Gives what adds attributes that are known later.

    Args:
        name: What is done.
        under: Where the span belongs, when that is in another thread or process; None for here.
        attributes: Added as ``curate.`` and their names, with the run.
    """
    tracer = _tracer()
    if tracer is None:
        yield lambda **_: None
        return
    run = under.run if under else _here.get()
    context = _import("propagate").extract(dict(under.headers)) if under else None
    with tracer.start_as_current_span(name, context=context) as made:

        def note(**more: str | int) -> None:
            made.set_attributes({f"curate.{key}": value for key, value in more.items()})

        note(run=run, **attributes)
        yield note


def flush() -> None:
    """Send what was collected, before a process may end without notice."""
    if _tracer() is not None:
        # A method of the SDK's provider and not of the API.
        getattr(_import("trace").get_tracer_provider(), "force_flush", lambda: None)()


def _import(name: str) -> Any:
    """A module of OpenTelemetry, by name, because it is no dependency of ours."""
    return importlib.import_module(f"opentelemetry.{name}")


def _tracer() -> Any:
    """What makes spans; None where nobody collects them."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if _exporters():
        _set_up()
    api = sys.modules.get("opentelemetry.trace")
    if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        return None
    return api.get_tracer("curate", __version__)


def _exporters() -> tuple[str, ...]:
    """Where the environment wants spans sent: ``otlp``, ``console`` …"""
    asked = os.environ.get("OTEL_TRACES_EXPORTER", "").strip()
    if not asked and any(os.environ.get(name) for name in _ENDPOINTS):
        asked = "otlp"
    return tuple(name for part in asked.split(",") if (name := part.strip().lower()) not in ("", "none"))


@cache
def _set_up() -> None:
    """Send spans where the environment says, once a process, unless a program has seen to it already."""
    try:
        api, sdk, sending, resources = (
            _import(name) for name in ("trace", "sdk.trace", "sdk.trace.export", "sdk.resources")
        )
    except ImportError as error:
        logger.warning("no traces are sent: %s; install opentelemetry-sdk and an exporter, or unset OTEL_*", error)
        return
    if not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        return
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = {"service.version": __version__} | ({} if named else {"service.name": "curate"})
    provider = sdk.TracerProvider(resource=resources.Resource.create(own))
    for name in _exporters():
        if (exporter := _exporter(name)) is not None:
            provider.add_span_processor(sending.BatchSpanProcessor(exporter))
    api.set_tracer_provider(provider)


def _exporter(name: str) -> Any:
    """The exporter of a name, set up by its own variables; None, with a warning, where there is none."""
    chosen = next((value for variable in _PROTOCOLS if (value := os.environ.get(variable))), "")
    names = [_OTLP.get(chosen, chosen)] if chosen else list(_OTLP.values())
    for entry in names if name == "otlp" else [name]:
        for found in entry_points(group="opentelemetry_traces_exporter", name=entry):
            try:
                return found.load()()
            # Whatever an exporter raises over its settings: what cannot be traced can be built all the same.
            except Exception as error:
                logger.warning("no traces are sent to %s: %s", name, error)
                return None
    logger.warning("no traces are sent to %s: no such exporter is installed; try opentelemetry-exporter-%s", name, name)
    return None
