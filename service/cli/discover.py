"""`mailbus accounts discover`: what says where an address's mail is, and settings by the first of it."""

import re
from typing import Final

import typer
from rich.console import Console

from service.discovery import Finding, Server, Ways, find
from service.errors import EX_FAILURE, EX_OK
from service.settings import PRESETS

OAUTH2: Final = [
    "    oauth2:                                  # docs/operations.md says how to get these",
    "      grant: refresh_token",
    "      client_id: '…'",
    "      refresh_token: {file: /var/lib/mailbus/refresh-token}",
]


async def show_discovered(address: str) -> int:
    """Print the findings, then settings; 1 where nothing is known."""
    console = Console(soft_wrap=True, highlight=False)
    ways, missing = Ways.of_system()
    if missing is not None:
        Console(stderr=True, soft_wrap=True).print(f"mailbus: {missing}", style="yellow", markup=False)
    found = await find(address, ways)
    if not found:
        console.print(f"nobody says where the mail of {address} is: ask its provider", markup=False)
        return EX_FAILURE
    for finding in found:
        servers = f"IMAP {finding.imap or 'unknown'}, SMTP {finding.smtp or 'unknown'}"
        console.print(f"{finding.source}: {servers}", markup=False)
    console.print("\nSettings by the first of these, to be looked at before they are used:\n", style="dim")
    typer.echo(as_settings(address, found[0]))
    return EX_OK


def as_settings(address: str, finding: Finding) -> str:
    """An account in YAML."""
    name = re.sub(r"[^A-Za-z0-9_-]", "-", address.partition("@")[0])[:64] or "account"
    lines = ["accounts:", f"  - id: {_quoted(name)}", f"    address: {_quoted(address)}"]
    if finding.preset is not None:
        known = PRESETS[finding.preset]
        lines += [f"    preset: {finding.preset}", f"    # {known.wants}"]
        lines += ["    password: {env: MAIL_PASSWORD}"] if known.passwords else OAUTH2
        return "\n".join(lines)
    lines += ["    password: {env: MAIL_PASSWORD}"]
    for direction, protocol, server in (("incoming", "imap", finding.imap), ("outgoing", "smtp", finding.smtp)):
        if server is not None:
            lines += [f"    {direction}:"]
            if server.username and server.username != address:
                lines += [f"      username: {_quoted(server.username)}"]
            lines += [f"      {protocol}: {_server(server)}"]
    return "\n".join(lines)


def _server(server: Server) -> str:
    return f"{{host: {_quoted(server.host)}, port: {server.port}, security: {server.security}}}"


def _quoted(text: str) -> str:
    """Text as YAML reads it back, whatever it looks like."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z0-9.@-]*[A-Za-z]", text) else "'" + text.replace("'", "''") + "'"
