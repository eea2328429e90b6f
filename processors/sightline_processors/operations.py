"""What an ended span says about the operation it stands for, in the stable or the old conventions.

Source: semantic conventions v1.44.0, database, http and messaging; for the old names, v1.24.0.
"""

import re
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry.semconv._incubating.attributes.db_attributes import (
    DB_MONGODB_COLLECTION,
    DB_NAME,
    DB_OPERATION,
    DB_SQL_TABLE,
    DB_STATEMENT,
    DB_SYSTEM,
)
from opentelemetry.semconv._incubating.attributes.http_attributes import (
    HTTP_METHOD,
    HTTP_STATUS_CODE,
    HTTP_URL,
)
from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_DESTINATION_ANONYMOUS,
    MESSAGING_DESTINATION_NAME,
    MESSAGING_DESTINATION_TEMPLATE,
    MESSAGING_DESTINATION_TEMPORARY,
    MESSAGING_OPERATION,
    MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE,
    MESSAGING_SYSTEM,
)
from opentelemetry.semconv._incubating.attributes.net_attributes import NET_PEER_NAME, NET_PEER_PORT
from opentelemetry.semconv._incubating.attributes.url_attributes import URL_TEMPLATE
from opentelemetry.semconv.attributes.db_attributes import (
    DB_COLLECTION_NAME,
    DB_NAMESPACE,
    DB_OPERATION_BATCH_SIZE,
    DB_OPERATION_NAME,
    DB_QUERY_SUMMARY,
    DB_QUERY_TEXT,
    DB_SYSTEM_NAME,
)
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.attributes.url_attributes import URL_FULL
from opentelemetry.trace import SpanKind

from sightline_processors.performance_alerts import Attributes, Operation
from sightline_processors.statements import MAX_SUMMARY_CHARACTERS, command_summary, statement_summary

MAX_TEXT_CHARACTERS: Final = 255
"""Of any one attribute of an alert."""

_MAX_URL_CHARACTERS: Final = 2048
_ADDRESS: Final = re.compile(r"[A-Za-z0-9._:/-]{1,255}")
_OPERATION_WORDS: Final = re.compile(r"[A-Za-z][\w. -]{0,63}")
_REDIS: Final = frozenset({"redis", "valkey"})
_PIPELINE_LENGTH: Final = "db.redis.pipeline_length"
"""Of the stock Redis instrumentation."""
_PIPELINE: Final = "PIPELINE"
_WAITING_COMMANDS: Final = frozenset(
    {"BLMOVE", "BLMPOP", "BLPOP", "BRPOP", "BRPOPLPUSH", "BZMPOP", "BZPOPMAX", "BZPOPMIN", "MONITOR"}
    | {"PSUBSCRIBE", "SSUBSCRIBE", "SUBSCRIBE", "WAIT", "WAITAOF"}
)
"""Commands that wait for what others do: to take long is their purpose."""
_WAITING_TYPES: Final = frozenset({"poll", "receive"})

_DB_FACTS: Final = {
    DB_NAMESPACE: (DB_NAMESPACE, DB_NAME),
    SERVER_ADDRESS: (SERVER_ADDRESS, NET_PEER_NAME),
    SERVER_PORT: (SERVER_PORT, NET_PEER_PORT),
    ERROR_TYPE: (ERROR_TYPE,),
}
_HTTP_FACTS: Final = {
    HTTP_REQUEST_METHOD: (HTTP_REQUEST_METHOD, HTTP_METHOD),
    HTTP_RESPONSE_STATUS_CODE: (HTTP_RESPONSE_STATUS_CODE, HTTP_STATUS_CODE),
    URL_TEMPLATE: (URL_TEMPLATE,),
    SERVER_PORT: (SERVER_PORT, NET_PEER_PORT),
    ERROR_TYPE: (ERROR_TYPE,),
}
_MESSAGING_FACTS: Final = {
    MESSAGING_SYSTEM: (MESSAGING_SYSTEM,),
    MESSAGING_OPERATION_NAME: (MESSAGING_OPERATION_NAME, MESSAGING_OPERATION),
    MESSAGING_OPERATION_TYPE: (MESSAGING_OPERATION_TYPE,),
    SERVER_PORT: (SERVER_PORT, NET_PEER_PORT),
    ERROR_TYPE: (ERROR_TYPE,),
}
_FACTS: Final = {"db": _DB_FACTS, "redis": _DB_FACTS, "http": _HTTP_FACTS, "messaging": _MESSAGING_FACTS}
"""Attributes of an alert, by where they are in a span: the stable name, then the old one."""


def operation_of(attributes: Attributes, kind: SpanKind) -> Operation | None:
    """Returns the operation that a span stands for; None for any other work."""
    system = _text(attributes, DB_SYSTEM_NAME, DB_SYSTEM)
    if system:
        return "redis" if system in _REDIS else "db"
    if MESSAGING_SYSTEM in attributes:
        return "messaging"
    if kind is SpanKind.CLIENT and (HTTP_REQUEST_METHOD in attributes or HTTP_METHOD in attributes):
        return "http"
    return None


def system_of(operation: Operation, attributes: Attributes) -> str | None:
    """Returns the database system; None where the operation is no database's."""
    if operation not in {"db", "redis"}:
        return None
    return _printable(_text(attributes, DB_SYSTEM_NAME, DB_SYSTEM) or "") or None


def waits(operation: Operation, attributes: Attributes) -> bool:
    """Tells whether an operation waits by design: a blocking command of Redis, receiving messages."""
    if operation == "redis":
        return _redis_summary(attributes) in _WAITING_COMMANDS
    if operation == "messaging":
        return _text(attributes, MESSAGING_OPERATION_TYPE, MESSAGING_OPERATION) in _WAITING_TYPES
    return False


def address_of(attributes: Attributes) -> str | None:
    """Returns the server's host name, IP address or socket path; None where it is not known or is odd.

    Of a URL only the host is taken.
    """
    address = _text(attributes, SERVER_ADDRESS, NET_PEER_NAME)
    if address is None:
        address = _host(_text(attributes, URL_FULL, HTTP_URL))
    return address if address and _ADDRESS.fullmatch(address) else None


def describe(operation: Operation, attributes: Attributes) -> tuple[str, Attributes]:
    """Returns what was slow in a few words, and the attributes of its alert.

    Never a path, a query, a literal or a parameter; text of at most 255 printable characters.
    """
    facts: dict[str, Any] = {}
    for name, sources in _FACTS[operation].items():
        value = _first(attributes, sources)
        if value is not None:
            facts[name] = value
    address = address_of(attributes)
    if address is not None:
        facts[SERVER_ADDRESS] = address
    else:
        facts.pop(SERVER_ADDRESS, None)
    if operation == "messaging":
        return _describe_messaging(attributes, facts), facts
    if operation == "http":
        target = facts.get(URL_TEMPLATE, "")
        return " ".join(
            str(word) for word in (facts.get(HTTP_REQUEST_METHOD), address, target) if word
        ), facts
    return _describe_query(operation, attributes, facts), facts


def _describe_query(operation: Operation, attributes: Attributes, facts: dict[str, Any]) -> str:
    system = system_of(operation, attributes)
    if system:
        facts[DB_SYSTEM_NAME] = system
    summary = _summary(operation, attributes)
    if summary:
        facts[DB_QUERY_SUMMARY] = summary
    return summary or ""


def _describe_messaging(attributes: Attributes, facts: dict[str, Any]) -> str:
    is_passing = attributes.get(MESSAGING_DESTINATION_TEMPORARY) or attributes.get(
        MESSAGING_DESTINATION_ANONYMOUS
    )
    key = MESSAGING_DESTINATION_TEMPLATE
    if key not in attributes and not is_passing:
        key = MESSAGING_DESTINATION_NAME
    destination = _printable(_text(attributes, key) or "")
    if destination:
        facts[key] = destination
    return f"{facts.get(MESSAGING_OPERATION_NAME, '')} {destination}".strip()


def _summary(operation: Operation, attributes: Attributes) -> str | None:
    """Returns what a query does: as its instrumentation summed it up, or made from its text or its names."""
    given = _text(attributes, DB_QUERY_SUMMARY)
    if given:
        return _printable(given)[:MAX_SUMMARY_CHARACTERS]
    if operation == "redis":
        return _redis_summary(attributes)
    text = _text(attributes, DB_QUERY_TEXT, DB_STATEMENT)
    made = statement_summary(text, _text(attributes, DB_SYSTEM_NAME, DB_SYSTEM) or "") if text else None
    return made or _named(attributes)


def _redis_summary(attributes: Attributes) -> str | None:
    length = _first(attributes, (DB_OPERATION_BATCH_SIZE, _PIPELINE_LENGTH))
    if isinstance(length, int) and length > 1:
        return _PIPELINE
    name = _text(attributes, DB_OPERATION_NAME, DB_QUERY_TEXT, DB_STATEMENT)
    return command_summary(name) if name else None


def _named(attributes: Attributes) -> str | None:
    """Returns operation and collection of a system without a text, such as MongoDB."""
    name = _text(attributes, DB_OPERATION_NAME, DB_OPERATION)
    if name is None or not _OPERATION_WORDS.fullmatch(name):
        return None
    collection = _text(attributes, DB_COLLECTION_NAME, DB_SQL_TABLE, DB_MONGODB_COLLECTION) or ""
    return f"{name} {_printable(collection)}".strip()[:MAX_SUMMARY_CHARACTERS]


def _first(attributes: Attributes, names: tuple[str, ...]) -> str | int | None:
    """Returns the first number or text among attributes; the text bounded and printable."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and value:
            return _printable(value)
        if isinstance(value, int):
            return value
    return None


def _text(attributes: Attributes, *names: str) -> str | None:
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and value:
            return value
    return None


def _printable(text: str) -> str:
    """Returns the beginning of a text, without control characters and what UTF-8 cannot hold."""
    text = text[:MAX_TEXT_CHARACTERS]
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def _host(url: str | None) -> str | None:
    try:
        return urlsplit(url[:_MAX_URL_CHARACTERS]).hostname if url else None
    except ValueError:  # brackets without an IPv6 address
        return None
