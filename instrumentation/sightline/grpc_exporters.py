"""The exporters behind the name `otlp_proto_grpc`: the real ones, or http/protobuf in their place.

Another distribution may ask for gRPC although its exporter is not installed. The SDK's configurator then
gives up on all three signals; with these entry points nothing is lost, and one line says what happened.
"""

import os

from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_ENDPOINT

from sightline_processors.report import logger

try:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
except ImportError:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import (  # type: ignore[assignment]
        OTLPLogExporter,
    )
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # type: ignore[assignment]
        OTLPMetricExporter,
    )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # type: ignore[assignment]
        OTLPSpanExporter,
    )

    logger.warning(
        "OTLP over gRPC was asked for, but its exporter is not installed: exporting over http/protobuf to "
        "%s; set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or pip install 'sightline[grpc]'",
        os.environ.get(OTEL_EXPORTER_OTLP_ENDPOINT) or "http://localhost:4318",
    )

__all__ = ["OTLPLogExporter", "OTLPMetricExporter", "OTLPSpanExporter"]
