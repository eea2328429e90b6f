"""What an answer of the endpoint means for the batch.

Source: OTLP specification 1.5, sections "OTLP/HTTP Response" and "Retryable Response Codes".
"""

import json
import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sightline_processors.export import reasons
from sightline_processors.export.reasons import Signal
from sightline_processors.export.verdicts import Delivered, Drop, Retry, Verdict

MAX_BODY_BYTES: Final = 64 * 1024
"""What is read of an answer; a longer one is not OTLP. Source: the collector's own exporter, otlphttp."""

_SUCCESS, _REDIRECTION, _ERROR = 200, 300, 400
_RETRYABLE: Final = frozenset({429, 502, 503, 504})
_PROTOBUF: Final = frozenset({"", "application/x-protobuf", "application/protobuf"})
_JSON: Final = "application/json"
_RESPONSES: Final[dict[Signal, tuple[Any, str, str]]] = {
    "traces": (ExportTraceServiceResponse, "rejected_spans", "rejectedSpans"),
    "metrics": (ExportMetricsServiceResponse, "rejected_data_points", "rejectedDataPoints"),
    "logs": (ExportLogsServiceResponse, "rejected_log_records", "rejectedLogRecords"),
}


def verdict_of_http(signal: Signal, status: int, headers: Mapping[str, str], body: bytes) -> Verdict:
    """Returns what an HTTP answer means.

    Args:
        signal: What was sent.
        status: Status code.
        headers: Looked up by lower-case names.
        body: At most `MAX_BODY_BYTES` + 1 bytes of it.
    """
    detail = f"status {status}"
    if _SUCCESS <= status < _REDIRECTION:
        rejected = rejected_items(signal, headers.get("content-type") or "", body)
        return Drop(reasons.NOT_OTLP, detail) if rejected is None else Delivered(rejected)
    if _REDIRECTION <= status < _ERROR:
        return Retry(reasons.REDIRECTED, detail=detail)
    if status in _RETRYABLE:
        return Retry(reasons.UNAVAILABLE, retry_after_seconds(headers.get("retry-after")), detail)
    return Drop(reasons.REFUSED, detail)


def rejected_items(signal: Signal, content_type: str, body: bytes) -> int | None:
    """Returns how many items an acknowledgement says were rejected; None where the body is not OTLP.

    An empty body is an acknowledgement without a remark.
    """
    if not body:
        return 0
    kind = content_type.partition(";")[0].strip().lower()
    if len(body) > MAX_BODY_BYTES or (kind not in _PROTOBUF and kind != _JSON):
        return None
    response, field, json_field = _RESPONSES[signal]
    if kind == _JSON:
        return _rejected_in_json(json_field, body)
    try:
        return max(0, int(getattr(response.FromString(body).partial_success, field)))
    except DecodeError:
        return None


def _rejected_in_json(field: str, body: bytes) -> int | None:
    """Reads `{}` or `{"partialSuccess": {…}}`; numbers of 64 bits may be text. Anything else is not OTLP."""
    try:
        answer: Any = json.loads(body)
        if not isinstance(answer, dict) or answer.keys() - {"partialSuccess"}:
            return None
        return max(0, int((answer.get("partialSuccess") or {}).get(field) or 0))
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def retry_after_seconds(value: str | None) -> float:
    """Returns the wait that `Retry-After` asks for, 0 or more; 0 where it is missing, past or odd.

    Source: RFC 9110, section 10.2.3: seconds, or a date.
    """
    if value is None:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        seconds = _seconds_until(value)
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _seconds_until(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, OSError, IndexError):
        return 0.0
