"""The settings' types → their JSON Schema (docs/schema/settings.json) and the table of docs/settings.md."""

import json
from collections.abc import Iterator
from typing import Any, Final

from service.settings.model import AccountSettings, Settings
from service.settings.presets import PRESETS

Schema = dict[str, Any]
KINDS: Final = {"mailbus-duration": "duration", "mailbus-size": "size", "mailbus-path": "path", "idn-email": "address"}
# What these require may come from a preset, which a schema cannot know.
FROM_PRESET: Final = ("IncomingSettings", "OutgoingSettings", "ImapSettings", "SmtpSettings")
JSON_KINDS: Final = {"string": "text", "integer": "number", "array": "list", "boolean": "`true`, `false`"}
SCHEMA_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
PRESETS_TAIL: Final = (
    "With a preset that has servers both directions are on; `incoming: null` or `outgoing: null` turns one off. The"
    " others are server programs: write the hosts. Connections: how many an account may have at once; silence: after"
    " how much of it a connection is ended; both where they are known."
    " How to set up OAuth 2: [operations.md](operations.md#oauth-2)."
)
HEAD: Final = """\
# Settings

This page is generated from the settings' types: `make schema` writes it.

One YAML file, `mailbus run --config FILE`. Every key is also an environment variable, which wins over the file:
`MAILBUS_` and the key in capitals, with `__` for each dot, such as `MAILBUS_NATS__SERVERS` (a list is JSON, or names
with commas between; `MAILBUS_ACCOUNTS` is JSON; `null` is null where a key may be; a variable that names no key is
passed over). `mailbus check --config FILE` says what is wrong, all of it at once.

```yaml
nats:
  servers: [nats://127.0.0.1:4222]
accounts:
  - id: support
    address: support@example.com
    password: {env: SUPPORT_PASSWORD}
    incoming:
      imap: {host: imap.example.com}
    outgoing:
      smtp: {host: smtp.example.com}
```

- A **duration** is a whole number and its unit: `500ms`, `90s`, `4m`, `1h`, `30d`.
- A **size** is a whole number and its unit: `100B`, `256KiB`, `50MiB`, `1GiB`.
- A **secret** is `{env: NAME}`, `{file: PATH}` (the line end that ends the file is not part of it), or the text itself.
- **OAuth 2** stands instead of a password: `oauth2: {grant: …}`, for the account or for one direction.
- A **path** starts beside the settings file unless it begins with `/`.
- Text that looks like something else (a number, `no`, a date) goes in quotes.
- An anchor (`&name`) and its aliases (`*name`) may stand for what is the same in several places.

"""


def settings_schema() -> Schema:
    """JSON Schema 2020-12 of the settings file."""
    schema = Settings.model_json_schema(by_alias=True)
    for name in FROM_PRESET:
        schema["$defs"][name].pop("required", None)
    return {"$schema": SCHEMA_DIALECT, "title": "mailbus settings"} | {
        key: value for key, value in schema.items() if key != "title"
    }


def settings_reference() -> str:
    """docs/settings.md as text."""
    schema = settings_schema()
    rows = [
        f"| `{key}` | {kind} | {default} | {meaning} |" for key, kind, default, meaning in _rows(schema, schema, "")
    ]
    table = "\n".join(["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows])
    return HEAD + table + "\n" + _presets()


def _rows(whole: Schema, part: Schema, above: str) -> Iterator[tuple[str, str, str, str]]:
    required = part.get("required", [])
    for name, field in part["properties"].items():
        key = f"{above}{name}"
        inner = _inner(whole, field)
        if name == "oauth2" and above != "accounts[].":
            yield key, "keys as in `accounts[].oauth2`", _default(field), field.get("description", "")
            continue
        default = "required" if name in required else _default(field)
        if inner is None or default == "`null`":
            yield key, "keys below" if inner else _kind(whole, field), default, field.get("description", "")
        if inner is not None:
            dots = "[]." if field.get("type") == "array" else "."
            yield from _rows(whole, inner, key + dots)


def _inner(whole: Schema, field: Schema) -> Schema | None:
    """The settings below a key, where it has any."""
    for one in [field, field.get("items", {}), *field.get("anyOf", []), *field.get("allOf", [])]:
        if "$ref" in one:
            found: Schema = whole["$defs"][one["$ref"].rpartition("/")[2]]
            if "properties" in found:
                return found
    return None


def _default(field: Schema) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    return "" if value == "" else f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _kind(whole: Schema, field: Schema) -> str:
    if "$ref" in field:
        field = whole["$defs"][field["$ref"].rpartition("/")[2]]
    if field.get("writeOnly"):
        return "secret"
    kinds = [_one_kind(one) for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    return " or ".join(dict.fromkeys(kinds))


def _one_kind(field: Schema) -> str:
    if field.get("writeOnly"):
        return "secret"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if "properties" in field:
        return ", ".join(f"`{{{name}: …}}`" for name in field["properties"])
    if field.get("format") in KINDS:
        return KINDS[field["format"]]
    kind = str(field.get("type", ""))
    return JSON_KINDS.get(kind, kind)


def _presets() -> str:
    """Providers, what each wants, and what their OAuth 2 is."""
    lines = ["", "## Presets", "", "| preset | provider | connections | silence | IMAP | SMTP | wants |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    for name, preset in PRESETS.items():
        account = AccountSettings.model_validate({"id": "x", "address": "x@example.com"} | dict(preset.fills))
        both = (account.incoming and account.incoming.imap, account.outgoing and account.outgoing.smtp)
        servers = [f"{server.host}:{server.port} ({server.security})" if server else "" for server in both]
        wants = preset.wants + (f"<br>{preset.notes}" if preset.notes else "")
        count = preset.connections or ""
        lines.append(f"| `{name}` | {preset.title} | {count} | {preset.idle} | {servers[0]} | {servers[1]} | {wants} |")
    lines += [
        "",
        PRESETS_TAIL,
        "",
        "| preset | grant | filled in below `oauth2` | needs |",
        "| --- | --- | --- | --- |",
    ]
    for name, preset in PRESETS.items():
        for grant, consent in preset.oauth2.items():
            shown = "<br>".join(f"`{key}: {value}`" for key, value in consent.fills.items())
            lines.append(f"| `{name}` | `{grant}` | {shown} | {consent.wants} |")
    return "\n".join([*lines, ""])
