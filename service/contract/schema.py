"""The contract's classes → JSON Schema 2020-12 and AsyncAPI 3: generated, so they cannot drift. Pure."""

from typing import Any, Final

import msgspec

from service.contract.after import AFTER_HEADER
from service.contract.commands import (
    AppendAnswer,
    AppendRequest,
    CancelAnswer,
    CancelRequest,
    CopyAnswer,
    CopyRequest,
    DeleteAnswer,
    DeleteRequest,
    FlagsAnswer,
    FlagsRequest,
    GetAnswer,
    GetRequest,
    HeldAnswer,
    HeldAsked,
    MailboxesAnswer,
    MailboxesRequest,
    Problems,
    ResyncAnswer,
    ResyncRequest,
    SearchAnswer,
    SearchRequest,
    SendAnswer,
    UploadAnswer,
    UploadRequest,
    Verb,
)
from service.contract.email import Email
from service.contract.events import KIND_HEADER, AccountEvent, Changed, DeadReason, EventType, Removed, Reset
from service.contract.requests import SendRequest
from service.contract.status import EmailSubmission

ERROR_HEADERS: Final = ("Nats-Service-Error", "Nats-Service-Error-Code")
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
# (verb, request's class, answer's class, what it does)
COMMANDS: Final[list[tuple[Verb, type, type, str]]] = [
    (Verb.SEND, SendRequest, SendAnswer, "A request to send, checked at once."),
    (Verb.MAILBOXES, MailboxesRequest, MailboxesAnswer, "The account's mailboxes."),
    (Verb.SEARCH, SearchRequest, SearchAnswer, "The ids of a mailbox's messages that match."),
    (Verb.GET, GetRequest, GetAnswer, "Messages, with the properties that are asked for."),
    (Verb.FLAGS, FlagsRequest, FlagsAnswer, "Keywords set and taken away."),
    (Verb.COPY, CopyRequest, CopyAnswer, "Copies in another mailbox."),
    (Verb.MOVE, CopyRequest, CopyAnswer, "Messages into another mailbox."),
    (Verb.DELETE, DeleteRequest, DeleteAnswer, "Messages into the trash, or away for ever."),
    (Verb.APPEND, AppendRequest, AppendAnswer, "A message into a mailbox."),
    (Verb.UPLOAD, UploadRequest, UploadAnswer, "Bytes as a blob."),
    (Verb.RESYNC, ResyncRequest, ResyncAnswer, "Mailboxes compared in full now."),
    (Verb.HELD, HeldAsked, HeldAnswer, "Requests on hold."),
    (Verb.CANCEL, CancelRequest, CancelAnswer, "A request that shall not be sent any more."),
    (Verb.RELEASE, CancelRequest, CancelAnswer, "A request on hold that shall be sent again."),
]
SOME_OF_EMAIL: Final = "SomeOfEmail"


def _components(template: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    types = [*(row[2] for row in CHANNELS), *(one for row in COMMANDS for one in row[1:3]), Problems]
    refs, components = msgspec.json.schema_components(types, ref_template=template)
    # What `get` gives is an Email of which the properties are chosen.
    components[SOME_OF_EMAIL] = components["Email"] | {
        "title": SOME_OF_EMAIL,
        "description": "An Email with the properties that were asked for.",
        "required": ["id"],
    }
    components["GetAnswer"]["properties"]["list"]["items"] = {"$ref": template.format(name=SOME_OF_EMAIL)}
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
        messages[name] = {"contentType": "application/json", "payload": ref, "summary": meaning}
        if name in event_names:
            headers = "ReceivedHeaders" if name == EventType.RECEIVED else "CloudEventHeaders"
            messages[name]["headers"] = {"$ref": f"#/components/schemas/{headers}"}
        channels[name] = _channel(address, name)
        # AsyncAPI describes the application, which is mailbus: it receives requests and sends the rest.
        operations[name] = {
            "action": "receive" if name == "out" else "send",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": meaning,
        }
    _add_dead_letters(channels, messages, operations)
    _add_commands(channels, messages, operations)
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
                "reason": {"description": "Why it lies there.", "enum": [str(reason) for reason in DeadReason]},
            },
            "schemas": {
                "CloudEventHeaders": _headers_schema(),
                "ReceivedHeaders": _headers_schema(KIND_HEADER, may=(AFTER_HEADER,)),
                **components,
            },
        },
    }


def _add_dead_letters(channels: dict[str, Any], messages: dict[str, Any], operations: dict[str, Any]) -> None:
    """What could not be understood has no schema: it lies there as it came."""
    meaning = "What could not be understood, whole."
    messages["dead"] = {"summary": meaning, "payload": {}}
    channels["dead"] = _channel("{prefix}.dead.{reason}", "dead")
    operations["dead"] = {"action": "send", "channel": {"$ref": "#/channels/dead"}, "summary": meaning}


def _add_commands(channels: dict[str, Any], messages: dict[str, Any], operations: dict[str, Any]) -> None:
    """Requests with a reply: an answer of the verb's own, or what is wrong."""
    messages["problems"] = _message(Problems, "What is wrong, each with its field.") | {
        "headers": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ERROR_HEADERS},
            "required": list(ERROR_HEADERS),
        }
    }
    for verb, request, answer, meaning in COMMANDS:
        # A request to send is the same in the stream and as a command.
        asked, answered, reply = "out" if verb is Verb.SEND else f"{verb}Request", f"{verb}Answer", f"{verb}Reply"
        messages.setdefault(asked, _message(request, meaning))
        messages[answered] = _message(answer, f"The answer to `{verb}`.")
        channels[verb] = _channel(f"{{prefix}}.cmd.{{account}}.{verb}", asked)
        channels[reply] = {
            "address": None,
            "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in (answered, "problems")},
        }
        operations[verb] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{verb}"},
            "reply": {"channel": {"$ref": f"#/channels/{reply}"}},
            "summary": meaning,
        }


def _message(body: type, summary: str) -> dict[str, Any]:
    payload = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {"contentType": "application/json", "payload": payload, "summary": summary}


def _channel(address: str, message: str) -> dict[str, Any]:
    parameters = [word[1:-1] for word in address.split(".") if word.startswith("{")]
    return {
        "address": address,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "parameters": {parameter: {"$ref": f"#/components/parameters/{parameter}"} for parameter in parameters},
    }


def _headers_schema(*more: str, may: tuple[str, ...] = ()) -> dict[str, Any]:
    names = ["ce-specversion", "ce-id", "ce-type", "ce-source", "ce-time", "ce-subject", "content-type", *more]
    return {"type": "object", "properties": {name: {"type": "string"} for name in (*names, *may)}, "required": names}
