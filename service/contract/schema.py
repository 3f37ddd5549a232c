"""The contract's classes → JSON Schema 2020-12 and AsyncAPI 3: generated, so they cannot drift. Pure."""

from typing import Any, Final

import msgspec

from service.contract.commands import SendAnswer
from service.contract.email import Email
from service.contract.events import AccountEvent, Changed, EventType, Removed, Reset
from service.contract.requests import SendRequest
from service.contract.status import EmailSubmission

# (channel, address, message's class, what it means)
CHANNELS: Final[list[tuple[str, str, type, str]]] = [
    ("received", "{prefix}.in.{account}.{mailbox}.received", Email, "A new message, parsed."),
    ("changed", "{prefix}.in.{account}.{mailbox}.changed", Changed, "A message's keywords changed."),
    ("removed", "{prefix}.in.{account}.{mailbox}.removed", Removed, "A message left the mailbox."),
    ("reset", "{prefix}.in.{account}.{mailbox}.reset", Reset, "A new epoch of the mailbox begins."),
    ("out", "{prefix}.out.{account}", SendRequest, "A request to send."),
    ("status", "{prefix}.status.{account}.{state}", EmailSubmission, "What became of a request."),
    ("account", "{prefix}.account.{account}.{state}", AccountEvent, "What became of an account."),
]


def _components(template: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    types = [row[2] for row in CHANNELS] + [SendAnswer]
    refs, components = msgspec.json.schema_components(types, ref_template=template)
    return list(refs), components


def event_schema() -> dict[str, Any]:
    """One JSON Schema 2020-12 document: each body that crosses the bus is under `$defs`."""
    _, components = _components("#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mailbus: what crosses the bus",
        "$defs": components,
    }


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3.0 document: channels, messages, operations seen from a consumer's side."""
    refs, components = _components("#/components/schemas/{name}")
    event_names = set(EventType)
    channels: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for (name, address, _, meaning), ref in zip(CHANNELS, refs, strict=False):
        parameters = [word[1:-1] for word in address.split(".") if word.startswith("{")]
        messages[name] = {"contentType": "application/json", "payload": ref, "summary": meaning}
        if name in event_names:
            messages[name]["headers"] = {"$ref": "#/components/schemas/CloudEventHeaders"}
        channels[name] = {
            "address": address,
            "messages": {name: {"$ref": f"#/components/messages/{name}"}},
            "parameters": {parameter: {"$ref": f"#/components/parameters/{parameter}"} for parameter in parameters},
        }
        # AsyncAPI describes the application, which is mailbus: it receives requests and sends the rest.
        operations[name] = {
            "action": "receive" if name == "out" else "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": meaning,
        }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "mailbus", "version": "1", "license": {"name": "GPL-3.0-or-later"}},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "parameters": {
                "prefix": {"description": "`mail` unless settings say otherwise.", "default": "mail"},
                "account": {"description": "The account's id: [A-Za-z0-9_-]{1,64}."},
                "mailbox": {"description": "The mailbox's name as one token, percent-encoded."},
                "state": {"description": "The state that the event announces."},
            },
            "schemas": {"CloudEventHeaders": _headers_schema(), **components},
        },
    }


def _headers_schema() -> dict[str, Any]:
    names = ["ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "ce-subject", "content-type"]
    return {"type": "object", "properties": {name: {"type": "string"} for name in names}, "required": names}
