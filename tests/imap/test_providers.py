"""Each preset's provider as it greets and what it offers, by its transcripts: how mailbus logs in there, and follows.

Gmail, Exchange Online, iCloud and Zoho as the transcripts of other programs' tests have them, the others as reports
quote them (docs/quirks.md); none of them was spoken to.
"""

from dataclasses import dataclass, replace

import pytest

from service.contract import Sync
from service.imap import Changes
from service.settings import PRESETS
from tests.imap.test_session import session
from tests.oauth.harness import tokens
from tests.servers.imap_stub import Connection, ImapStub
from tests.servers.oauth import OAuthServer


@dataclass
class Provider:
    """`before` and `after` the login; `login`: by which mechanism; `sync`, `idles`: what it comes to."""

    preset: str
    greeting: str
    before: str
    after: str
    login: str
    sync: Sync
    idles: bool = True
    moves: bool = True
    by_token: bool = False


GOOGLE = Provider(
    "gmail",
    "* OK Gimap ready for requests from 127.0.0.1 i9if7359725qay.199",
    "IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 XYZZY SASL-IR AUTH=XOAUTH2 AUTH=PLAIN"
    " AUTH=PLAIN-CLIENTTOKEN AUTH=OAUTHBEARER",
    "IMAP4rev1 UNSELECT IDLE NAMESPACE QUOTA ID XLIST CHILDREN X-GM-EXT-1 UIDPLUS COMPRESS=DEFLATE ENABLE MOVE"
    " CONDSTORE ESEARCH UTF8=ACCEPT LIST-EXTENDED LIST-STATUS LITERAL- APPENDLIMIT=35651584 STATUS=SIZE OBJECTID",
    "AUTHENTICATE PLAIN",
    Sync.CONDSTORE,
)
MICROSOFT = Provider(
    "microsoft365",
    "* OK The Microsoft Exchange IMAP4 service is ready. [TQBXAEgAUABSADIAMQBDAEEAMAAwADYAMAAuAG4AYQBtAHAA]",
    "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS ID UNSELECT CHILDREN IDLE NAMESPACE LITERAL+",
    "IMAP4 IMAP4rev1 AUTH=PLAIN AUTH=XOAUTH2 SASL-IR UIDPLUS MOVE ID UNSELECT CLIENTACCESSRULES"
    " CLIENTNETWORKPRESENCELOCATION BACKENDAUTHENTICATE CHILDREN IDLE NAMESPACE LITERAL+",
    "AUTHENTICATE XOAUTH2",
    Sync.SNAPSHOT,
    by_token=True,
)
ZOHO = Provider(
    "zoho",
    "* OK Zoho Mail IMAP4rev1 Server Version 1.0",
    "IMAP4rev1 UNSELECT CHILDREN XLIST NAMESPACE IDLE MOVE ID AUTH=PLAIN SASL-IR UIDPLUS ESEARCH LIST-EXTENDED"
    " LIST-STATUS WITHIN LITERAL- APPENDLIMIT=10485760 CONDSTORE",
    "IMAP4rev1 UNSELECT CHILDREN XLIST NAMESPACE IDLE MOVE ID AUTH=PLAIN SASL-IR UIDPLUS ESEARCH LIST-EXTENDED"
    " LIST-STATUS WITHIN LITERAL- APPENDLIMIT=26214400 CONDSTORE",
    "AUTHENTICATE PLAIN",
    Sync.CONDSTORE,
)
PROVIDERS = [
    GOOGLE,
    Provider(
        "google-workspace", GOOGLE.greeting, GOOGLE.before, GOOGLE.after, "AUTHENTICATE", Sync.CONDSTORE, by_token=True
    ),
    MICROSOFT,
    Provider(
        "outlook", MICROSOFT.greeting, MICROSOFT.before, MICROSOFT.after, MICROSOFT.login, Sync.SNAPSHOT, by_token=True
    ),
    Provider(
        "yahoo",
        "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=OAUTHBEARER ID MOVE NAMESPACE"
        " XYMHIGHESTMODSEQ UIDPLUS LITERAL+ CHILDREN UNSELECT X-MSG-EXT OBJECTID] IMAP4rev1 Hello",
        "IMAP4rev1 SASL-IR AUTH=PLAIN",
        "IMAP4rev1 ID MOVE NAMESPACE XYMHIGHESTMODSEQ UIDPLUS LITERAL+ CHILDREN UNSELECT X-MSG-EXT OBJECTID IDLE"
        " ENABLE UIDONLY CONDSTORE ESEARCH PARTIAL",
        "AUTHENTICATE PLAIN",
        Sync.CONDSTORE,
    ),
    Provider(
        "icloud",
        "* OK [CAPABILITY XAPPLEPUSHSERVICE IMAP4 IMAP4rev1 SASL-IR AUTH=ATOKEN AUTH=PLAIN AUTH=ATOKEN2 AUTH=XOAUTH2]"
        " (2428B47-26126cfe23cd) p00-iscream-f9f7bf749-qjr87",
        "IMAP4rev1 SASL-IR AUTH=PLAIN",
        "XAPPLEPUSHSERVICE IMAP4 IMAP4rev1 ACL QUOTA LITERAL+ NAMESPACE UIDPLUS CHILDREN BINARY UNSELECT SORT LANGUAGE"
        " ESEARCH ESORT WITHIN ID IDLE ENABLE CONDSTORE QRESYNC",
        "AUTHENTICATE PLAIN",
        Sync.QRESYNC,
        moves=False,
    ),
    Provider(
        "fastmail",
        "* OK [CAPABILITY IMAP4rev1 LITERAL+ ID ENABLE SASL-IR AUTH=PLAIN AUTH=OAUTHBEARER] IMAP4 ready",
        "IMAP4rev1 LITERAL+ ID ENABLE SASL-IR AUTH=PLAIN",
        "IMAP4rev1 LITERAL+ ID ENABLE ACL BINARY CHILDREN CONDSTORE ESEARCH ESORT IDLE LIST-EXTENDED LIST-STATUS MOVE"
        " NAMESPACE OBJECTID QRESYNC SORT SPECIAL-USE UIDPLUS UNSELECT WITHIN",
        "AUTHENTICATE PLAIN",
        Sync.QRESYNC,
    ),
    Provider(
        "gmx",
        "* OK [CAPABILITY IMAP4rev1 CHILDREN ENABLE ID IDLE LIST-EXTENDED LIST-STATUS LITERAL- MOVE NAMESPACE SASL-IR"
        " SORT SPECIAL-USE THREAD=ORDEREDSUBJECT UIDPLUS UNSELECT WITHIN AUTH=LOGIN AUTH=PLAIN] IMAP server ready",
        "IMAP4rev1 SASL-IR AUTH=LOGIN AUTH=PLAIN",
        "IMAP4rev1 CHILDREN ENABLE ID IDLE LIST-EXTENDED LIST-STATUS LITERAL- MOVE NAMESPACE SASL-IR SORT SPECIAL-USE"
        " THREAD=ORDEREDSUBJECT UIDPLUS UNSELECT WITHIN",
        "AUTHENTICATE PLAIN",
        Sync.SNAPSHOT,
    ),
    ZOHO,
    replace(ZOHO, preset="zoho-pro"),
    Provider(
        "qq",
        "* OK [CAPABILITY IMAP4 IMAP4rev1 ID AUTH=PLAIN AUTH=LOGIN AUTH=XOAUTH2 NAMESPACE] QQMail XMIMAP4Server ready",
        "IMAP4 IMAP4rev1 ID AUTH=PLAIN AUTH=LOGIN NAMESPACE",
        "IMAP4 IMAP4rev1 XLIST MOVE IDLE XAPPLEPUSHSERVICE NAMESPACE CHILDREN ID UIDPLUS COMPRESS=DEFLATE",
        "AUTHENTICATE PLAIN",
        Sync.SNAPSHOT,
    ),
    Provider(
        "163",
        "* OK Coremail System IMap Server Ready(163com)",
        "IMAP4rev1 XLIST SPECIAL-USE ID LITERAL+ STARTTLS UIDPLUS X-CM-EXT-1",
        "IMAP4rev1 XLIST SPECIAL-USE ID LITERAL+ STARTTLS UIDPLUS X-CM-EXT-1",
        "LOGIN",
        Sync.SNAPSHOT,
        idles=False,
        moves=False,
    ),
]


@pytest.mark.parametrize("provider", PROVIDERS, ids=[one.preset for one in PROVIDERS])
async def test_a_provider_is_logged_in_to_and_followed_as_its_transcript_wants(
    imap_stub: ImapStub, oauth: OAuthServer, provider: Provider
) -> None:
    async def let_in(connection: Connection, tag: str, arguments: str) -> bool:
        if arguments in {"PLAIN", "LOGIN"}:
            await connection.send("+ \r\n")
            await connection.line()
        imap_stub.capabilities = provider.after
        return False

    async def enable(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"* ENABLED {arguments}\r\n{tag} OK\r\n")
        return True

    imap_stub.greeting, imap_stub.capabilities = f"{provider.greeting}\r\n", provider.before
    imap_stub.highestmodseq = 9 if "CONDSTORE" in provider.after else 0
    imap_stub.messages = {4: b"Subject: one\r\n\r\nbody\r\n"}
    imap_stub.hooks |= {"AUTHENTICATE": let_in, "LOGIN": let_in, "ENABLE": enable}
    async with session(imap_stub.port, tokens=tokens(oauth) if provider.by_token else None) as opened:
        changes = Changes(opened)
        mailbox = await changes.open("INBOX")
        assert [message.uid for message in await opened.survey(1, None)] == [4]
        assert (mailbox.exists, changes.sync) == (1, provider.sync)
        assert opened.offers("IDLE") == provider.idles
        assert opened.offers("MOVE") == provider.moves
        assert opened.offers("UIDPLUS")
    said = [line.partition(" ")[2] for line in imap_stub.commands]
    assert any(line.startswith(provider.login) for line in said)
    assert any(line.startswith("ID (") for line in said)


def test_every_preset_of_a_provider_has_its_transcript() -> None:
    assert {one.preset for one in PROVIDERS} == {name for name, preset in PRESETS.items() if preset.fills}


# As their help pages name them; read again in November 2026.
DOCUMENTED = {
    "gmail": ("imap.gmail.com", "smtp.gmail.com", "tls"),
    "google-workspace": ("imap.gmail.com", "smtp.gmail.com", "tls"),
    "outlook": ("outlook.office365.com", "smtp-mail.outlook.com", "starttls"),
    "microsoft365": ("outlook.office365.com", "smtp.office365.com", "starttls"),
    "yahoo": ("imap.mail.yahoo.com", "smtp.mail.yahoo.com", "tls"),
    "icloud": ("imap.mail.me.com", "smtp.mail.me.com", "starttls"),
    "fastmail": ("imap.fastmail.com", "smtp.fastmail.com", "tls"),
    "gmx": ("imap.gmx.net", "mail.gmx.net", "tls"),
    "zoho": ("imap.zoho.com", "smtp.zoho.com", "tls"),
    "zoho-pro": ("imappro.zoho.com", "smtppro.zoho.com", "tls"),
    "qq": ("imap.qq.com", "smtp.qq.com", "tls"),
    "163": ("imap.163.com", "smtp.163.com", "tls"),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_preset_has_the_hosts_that_its_provider_documents(name: str) -> None:
    fills = PRESETS[name].fills
    sending = fills["outgoing"]["smtp"]
    assert (fills["incoming"]["imap"]["host"], sending["host"], sending.get("security", "tls")) == DOCUMENTED[name]
