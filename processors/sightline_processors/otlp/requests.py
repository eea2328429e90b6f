"""Requests from items that are encoded already.

`ExportTraceServiceRequest` and `ExportLogsServiceRequest` have the same layout: resources, in each of them
scopes, in each of them items.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from sightline_processors.otlp import wire
from sightline_processors.otlp.fields import attributes_field, join_readable, text_field
from sightline_processors.otlp.primitives import field, varint

MAX_KEPT: Final = 256
"""Resources, and as many scopes, whose bytes are kept; a process has one resource and dozens of scopes."""


class _Frame(NamedTuple):
    """What stands before and after the parts of a resource or of a scope."""

    head: bytes
    tail: bytes


class _Frames(dict[int, tuple[object, _Frame]]):
    """The bytes of resources or scopes by identity; an entry keeps its object, and so its id, alive."""

    __slots__ = ("_readers", "_tag")

    def __init__(self, tag: bytes, readers: tuple[Callable[[Any], bytes], ...]) -> None:
        self._tag, self._readers = tag, readers

    def of(self, item: object) -> _Frame:
        """Returns the frame of an object; an empty one for None and for what cannot be read."""
        kept = self.get(id(item))
        if kept is not None:
            return kept[1]
        frame = _Frame(field(self._tag, join_readable(self._readers, item)), join_readable(_TAIL, item))
        if len(self) >= MAX_KEPT:
            self.clear()
        self[id(item)] = item, frame
        return frame


_TAIL: Final = (lambda item: text_field(wire.SCHEMA_URL, item.schema_url),)

_RESOURCE_ATTRIBUTES: Final = wire.attribute_fields(wire.RESOURCE_ATTRIBUTES)
_SCOPE_ATTRIBUTES: Final = wire.attribute_fields(wire.SCOPE_ATTRIBUTES)

_RESOURCES: Final = _Frames(
    wire.RESOURCE, (lambda resource: attributes_field(_RESOURCE_ATTRIBUTES, resource.attributes),)
)
_SCOPES: Final = _Frames(
    wire.SCOPE,
    (
        lambda scope: text_field(wire.SCOPE_NAME, scope.name),
        lambda scope: text_field(wire.SCOPE_VERSION, scope.version),
        lambda scope: attributes_field(_SCOPE_ATTRIBUTES, scope.attributes),
    ),
)

_NOTHING: Final = object()
_Groups = dict[_Frame, dict[_Frame, list[bytes]]]


def join_request(items: Iterable[tuple[Resource | None, InstrumentationScope | None, bytes]]) -> bytes:
    """Returns an `ExportTraceServiceRequest` or an `ExportLogsServiceRequest`.

    Resources, and in each of them scopes, stand in the order of their first item, items in the order given.
    Resources are one where their bytes are (same attributes in the same order, same schema URL), and so are
    scopes.
    None stands for an empty resource or scope. No items make an empty request.

    Args:
        items: What the items belong to, and their bytes from `encode_span` or `encode_log_record`. Resources
            and scopes do not change, as the SDK's do not: their bytes are kept. Thread-safe.
    """
    groups: _Groups = {}
    previous_resource: object = _NOTHING
    previous_scope: object = _NOTHING
    members: list[bytes] = []
    for resource, scope, item in items:
        if resource is not previous_resource or scope is not previous_scope:
            scopes = groups.setdefault(_RESOURCES.of(resource), {})
            members = scopes.setdefault(_SCOPES.of(scope), [])
            previous_resource, previous_scope = resource, scope
        members.append(item)
    return _joined(groups)


def _joined(groups: _Groups) -> bytes:
    parts: list[bytes] = []
    for resource, scopes in groups.items():
        inner = [resource.head]
        for scope, members in scopes.items():
            size = len(scope.head) + sum(map(len, members)) + len(scope.tail)
            inner += (wire.RESOURCE_SCOPE, varint(size), scope.head)
            inner += members
            inner.append(scope.tail)
        inner.append(resource.tail)
        parts += (wire.REQUEST_RESOURCE, varint(sum(map(len, inner))))
        parts += inner
    return b"".join(parts)
