"""The API's description, OpenAPI 3.1 (JSON Schema 2020-12), made from the records that it encodes.

Rules: a schema says what `ipc.codec` writes and reads. What a check of `ipc.fields` demands beyond
a type stands beside it in Annotated, as JSON Schema.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ifdefault import __version__
from ifdefault.ipc.control.protocol import MOST_EVENTS, EventList, UplinkChanged
from ifdefault.model.report import CounterReport, DaemonStatus
from ifdefault.web.helper import PROTOCOLS
from ifdefault.web.records import (
    Explanation,
    HistoryReport,
    OutageReport,
    Problems,
    Schema,
    UplinkState,
)

SERIALS, LATEST = 1 << 62, 1 << 40  # the greatest number of an event, and of a time
_SCALARS: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    float: {"anyOf": [{"type": "number"}, {"enum": ["Infinity", "-Infinity", "NaN"]}]},
    bytes: {"type": "string", "pattern": "^([0-9a-f]{2})*$"},
}


class Schemas:
    """The schemas of records, each once, by the names of their classes."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}

    def of(self, hint: Any) -> dict[str, Any]:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            schema = self.of(arguments[0])
            for each in arguments[1:]:
                schema |= each.words if isinstance(each, Schema) else {}
            return schema
        if origin is Literal:
            return {"enum": [*arguments]}
        if origin in (Union, types.UnionType):
            nullable = [{"type": "null"}] * (types.NoneType in arguments)
            members = [self.of(a) for a in arguments if a is not types.NoneType]
            return {"anyOf": [*members, *nullable]}
        if origin is tuple:
            return self._tuple(arguments)
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if is_dataclass(hint):
            return self._record(hint)
        return dict(_SCALARS[hint])

    def _tuple(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if arguments[1:] == (...,):
            return {"type": "array", "items": self.of(arguments[0])}
        number = len(arguments)
        items = [self.of(argument) for argument in arguments]
        return {"type": "array", "prefixItems": items, "minItems": number, "maxItems": number}

    def _record(self, kind: Any) -> dict[str, Any]:
        name = kind.__name__
        if name not in self.components:
            self.components[name] = {}  # a record may contain itself
            hints = get_type_hints(kind, include_extras=True)
            needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
            self.components[name] = {
                "type": "object",
                "description": " ".join((kind.__doc__ or "").split()),
                "properties": {field.name: self.of(hints[field.name]) for field in fields(kind)},
                "required": needed,
                "additionalProperties": False,
            }
        return {"$ref": f"#/components/schemas/{name}"}


# --- the document -------------------------------------------------------------------------

_UPLINK = {"in": "path", "name": "name", "required": True, "schema": {"type": "string"}}
_STATUSES = {
    400: "The request is invalid.",
    401: "The token is missing or wrong.",
    403: "It isn't permitted: a wrong control token, another site's page, or a read-only API.",
    404: "There is no such uplink.",
    408: "The body came too slowly.",
    409: "It can't be explained.",
    413: "The body is too long.",
    415: "The body isn't JSON.",
    421: "The Host header is none of this host's.",
    503: "The daemon doesn't answer, or there is no history.",
}


def _parameter(name: str, schema: dict[str, Any], text: str, required: bool = False) -> Any:
    return {
        "in": "query",
        "name": name,
        "required": required,
        "schema": schema,
        "description": text,
    }


def _whole(low: int, high: int, default: int | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": high}
    return schema if default is None else {**schema, "default": default}


_TIME = (
    _parameter("since", _whole(0, LATEST), "Seconds since the epoch."),
    _parameter("until", _whole(0, LATEST), "Seconds since the epoch; now, by default."),
    _parameter("uplink", {"type": "string"}, "Only this uplink."),
)
_END = "An address, ADDRESS:PORT, [ADDRESS]:PORT, or any."


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def document() -> dict[str, Any]:
    """The whole description."""
    schemas = Schemas()

    def operation(
        name: str, summary: str, kind: Any, statuses: Sequence[int] = (), *parameters: Any
    ) -> dict[str, Any]:
        answers: dict[str, Any] = {
            "200": {"description": summary, "content": _content(schemas.of(kind))}
        }
        for status in sorted({400, 401, 421, *statuses}):
            content = _content(schemas.of(Problems))
            if status == 400:  # what isn't HTTP isn't a request of the API yet
                content |= {"text/plain": {"schema": {"type": "string"}}}
            answers[str(status)] = {"description": _STATUSES[status], "content": content}
        return {
            "operationId": name,
            "summary": summary,
            "parameters": [*parameters],
            "responses": answers,
        }

    change = operation(
        "setUplink",
        "Drain an uplink, force it up or down, or use it as its probes report.",
        UplinkChanged,
        (403, 404, 408, 413, 415, 503),
        _UPLINK,
    )
    change["requestBody"] = {"required": True, "content": _content(schemas.of(UplinkState))}
    paths = {
        "/status": operation("status", "The state of all uplinks.", DaemonStatus, (503,)),
        "/counters": operation("counters", "Counters, from 0.", CounterReport, (503,)),
        "/events": operation(
            "events",
            "What happened, the oldest first.",
            EventList,
            (503,),
            _parameter("after", _whole(-1, SERIALS, -1), "Only events with a greater serial."),
            _parameter("limit", _whole(1, MOST_EVENTS, 500), "The latest ones, so many."),
        ),
        "/history": operation(
            "history", "Paths and traffic by the hour.", HistoryReport, (503,), *_TIME
        ),
        "/outages": operation(
            "outages", "Outages that reach into a time.", OutageReport, (503,), *_TIME
        ),
        "/explain": operation(
            "explain",
            "Which uplink a packet or connection takes, and why.",
            Explanation,
            (409, 503),
            _parameter("protocol", {"enum": [*PROTOCOLS]}, "The protocol.", True),
            _parameter("source", {"type": "string"}, _END, True),
            _parameter("target", {"type": "string"}, _END, True),
            _parameter("iif", {"type": "string"}, "The interface a forwarded packet comes in on."),
            _parameter("mark", {"type": "string"}, "The mark of the packet, such as 0x1000000."),
            _parameter("uid", {"type": "string"}, "The ID of the user whose socket sends it."),
        ),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ifdefault",
            "version": __version__,
            "description": "The uplinks of a host: their state, what was decided, what happened.",
            "license": {"name": "ISC", "identifier": "ISC"},
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{}, {"bearer": []}, {"basic": []}],
        "paths": {path: {"get": get} for path, get in paths.items()}
        | {"/uplinks/{name}": {"post": change}},
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
            },
        },
    }
