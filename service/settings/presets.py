"""Providers as data: what `preset: NAME` fills in where an account's settings say nothing, and what each one wants.

Ports and protection are the defaults (993 and 465 by TLS, RFC 8314 3) unless they stand here. Limits stand here where
they are known: everybody ends an idle connection later than the default `idle` of 4 minutes renews it. Those of a
server program are its defaults; the host is whoever runs it. Where each fact is from stands in docs/quirks.md.
Used by fill.py and load.py, by the composition root and by discovery.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Consent:
    """OAuth 2 by one grant: keys of `oauth2`, and what has to be allowed first."""

    fills: Mapping[str, str]
    wants: str


@dataclass(frozen=True, slots=True)
class Preset:
    """One provider.

    fills: keys of an account. wants: what stands as the password, and where to get it. oauth2: by grant. domains: of
    its own addresses. mx: ends of the names of its customers' MX hosts. connections: at once, for one account, which
    `imap.connections` is by default. idle: after how much silence it ends a connection; `imap.idle` must be less.
    notes: its quirks. pop3: its host for POP3, where it has one. passwords: whether it takes any. keeps_sent: whether
    what goes out by its SMTP server is in the sender's Sent mailbox without anybody's doing.
    """

    title: str
    fills: Mapping[str, Any]
    wants: str
    oauth2: Mapping[str, Consent] = field(default_factory=dict)
    domains: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()
    connections: int | None = None
    idle: str = ""
    notes: str = ""
    pop3: str = ""
    passwords: bool = True
    keeps_sent: bool = False


def _hosts(imap: str, smtp: str, smtp_security: str = "tls", **more: Any) -> Mapping[str, Any]:
    sending = {"host": smtp} if smtp_security == "tls" else {"host": smtp, "security": smtp_security}
    return {"incoming": {"imap": {"host": imap}}, "outgoing": {"smtp": sending | more}}


_GOOGLE: Final = {
    # 2,500 MB a day, of which other programs have their share. All Mail holds what is neither spam nor trash: with the
    # three of them everything is announced once. Its topmost Received field names an address of its own network, and
    # no host.
    "incoming": {
        "imap": {"host": "imap.gmail.com", "daily": "2GiB"},
        "mailboxes": ["\\All", "\\Junk", "\\Trash"],
        "authserv_id": "mx.google.com",
    },
    "outgoing": {"smtp": {"host": "smtp.gmail.com"}},
}
_GOOGLE_FILLS: Final = {"token_url": "https://oauth2.googleapis.com/token", "scope": "https://mail.google.com/"}
_GOOGLE_CONSENT: Final = Consent(_GOOGLE_FILLS, "the scope https://mail.google.com/")
_GOOGLE_NOTES: Final = (
    "Ends connections after about 24 hours, with oauth2 after about one; mailbus comes back at once."
    " 2,500 MB may be read a day. Labels are mailboxes and keywords, and a message in several is one `emailId`"
)
_MICROSOFT_CONSENT: Final = Consent(
    {
        "token_url": "https://login.microsoftonline.com/common/oauth2/v2.0/token",
        "scope": "https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send offline_access",
    },
    "IMAP.AccessAsUser.All and SMTP.Send, and IMAP and SMTP AUTH switched on for the mailbox",
)
_MICROSOFT_WANTS: Final = "Microsoft takes no passwords: write oauth2"

_PASSWORD: Final = "the password that its operator gave"

PRESETS: Final[Mapping[str, Preset]] = {
    "gmail": Preset(
        title="Gmail",
        pop3="pop.gmail.com",
        fills=_GOOGLE,
        wants="an app password: turn on 2-Step Verification, then https://myaccount.google.com/apppasswords",
        oauth2={"refresh_token": _GOOGLE_CONSENT},
        domains=("gmail.com", "googlemail.com"),
        keeps_sent=True,
        connections=15,
        idle="10m",
        notes=_GOOGLE_NOTES,
    ),
    "google-workspace": Preset(
        title="Google Workspace",
        pop3="pop.gmail.com",
        fills=_GOOGLE,
        wants="an app password where the administrator allows it, or oauth2",
        oauth2={
            "refresh_token": _GOOGLE_CONSENT,
            "jwt_bearer": Consent(
                _GOOGLE_FILLS, "domain-wide delegation of https://mail.google.com/ to the service account's client id"
            ),
        },
        mx=("google.com", "googlemail.com"),
        keeps_sent=True,
        connections=15,
        idle="10m",
        notes=_GOOGLE_NOTES,
    ),
    "outlook": Preset(
        title="Outlook.com",
        pop3="outlook.office365.com",
        fills=_hosts("outlook.office365.com", "smtp-mail.outlook.com", "starttls", connections=3),
        wants=_MICROSOFT_WANTS,
        passwords=False,
        idle="30m",
        oauth2={"refresh_token": _MICROSOFT_CONSENT},
        domains=("outlook.com", "hotmail.com", "live.com", "msn.com"),
        keeps_sent=True,
    ),
    "microsoft365": Preset(
        title="Microsoft 365",
        pop3="outlook.office365.com",
        fills=_hosts("outlook.office365.com", "smtp.office365.com", "starttls", connections=3),
        wants=_MICROSOFT_WANTS,
        passwords=False,
        idle="30m",
        oauth2={
            "refresh_token": _MICROSOFT_CONSENT,
            # token_url has the tenant in it.
            "client_credentials": Consent(
                {"scope": "https://outlook.office365.com/.default"},
                "IMAP.AccessAsApp and SMTP.SendAsApp with an administrator's consent, the application's right to the"
                " mailbox (Add-MailboxPermission), and SMTP AUTH switched on for it",
            ),
        },
        mx=("mail.protection.outlook.com", "mx.microsoft"),
        keeps_sent=True,
    ),
    "yahoo": Preset(
        title="Yahoo",
        pop3="pop.mail.yahoo.com",
        fills=_hosts("imap.mail.yahoo.com", "smtp.mail.yahoo.com"),
        wants="an app password: Account Info, Security, App password",
        oauth2={
            "refresh_token": Consent(
                {"token_url": "https://api.login.yahoo.com/oauth2/get_token", "scope": "mail-w"},
                "the scope mail-w, for applications that Yahoo has approved",
            )
        },
        domains=("yahoo.com", "ymail.com", "rocketmail.com", "yahoo.co.uk", "yahoo.de", "yahoo.fr", "yahoo.it"),
        mx=("yahoodns.net",),
    ),
    "icloud": Preset(
        title="iCloud",
        fills=_hosts("imap.mail.me.com", "smtp.mail.me.com", "starttls"),
        wants="an app-specific password: https://account.apple.com, Sign-In and Security",
        domains=("icloud.com", "me.com", "mac.com"),
        mx=("mail.icloud.com",),
        notes="Where the address is refused over IMAP, write the part before the @ as `incoming.username`",
    ),
    "fastmail": Preset(
        title="Fastmail",
        pop3="pop.fastmail.com",
        fills=_hosts("imap.fastmail.com", "smtp.fastmail.com"),
        wants="an app password: Settings, Privacy & Security, Manage app passwords",
        oauth2={
            "refresh_token": Consent(
                {
                    "token_url": "https://api.fastmail.com/oauth/refresh",
                    "scope": "https://www.fastmail.com/dev/protocol-imap https://www.fastmail.com/dev/protocol-smtp",
                },
                "the scopes protocol-imap and protocol-smtp, for clients that Fastmail has registered",
            )
        },
        domains=("fastmail.com", "fastmail.fm"),
        mx=("messagingengine.com",),
    ),
    "gmx": Preset(
        title="GMX",
        pop3="pop.gmx.net",
        fills=_hosts("imap.gmx.net", "mail.gmx.net"),
        wants="the password, or an app password with two-factor login; and POP3 & IMAP switched on in its settings",
        domains=("gmx.net", "gmx.de", "gmx.at", "gmx.ch", "gmx.eu"),
    ),
    "zoho": Preset(
        title="Zoho (personal)",
        pop3="pop.zoho.com",
        fills=_hosts("imap.zoho.com", "smtp.zoho.com"),
        wants="the password, or an application-specific one with two-factor login; and IMAP switched on",
        domains=("zoho.com", "zohomail.com"),
        notes="Other regions have hosts of their own, such as imap.zoho.eu and imap.zoho.in: write them",
    ),
    "zoho-pro": Preset(
        title="Zoho (own domain)",
        pop3="poppro.zoho.com",
        fills=_hosts("imappro.zoho.com", "smtppro.zoho.com"),
        wants="the password, or an application-specific one with two-factor login; and IMAP switched on",
        mx=("zoho.com", "zohomail.com"),
        notes="Other regions have hosts of their own, such as imappro.zoho.eu and imappro.zoho.in: write them",
    ),
    "qq": Preset(
        title="QQ",
        pop3="pop.qq.com",
        fills=_hosts("imap.qq.com", "smtp.qq.com"),
        wants="an authorization code (授权码) from the mailbox's settings, where IMAP/SMTP is switched on",
        domains=("qq.com", "foxmail.com"),
    ),
    "163": Preset(
        title="NetEase 163",
        pop3="pop.163.com",
        fills=_hosts("imap.163.com", "smtp.163.com"),
        wants="an authorization code (授权码) from the mailbox's settings, where IMAP/SMTP is switched on",
        domains=("163.com",),
        notes="Nobody reads who does not say who he is (RFC 2971): mailbus does",
    ),
    "dovecot": Preset(
        title="Dovecot",
        fills={},
        wants=_PASSWORD,
        connections=10,
        idle="30m",
        notes="`mail_max_userip_connections` is 10 unless its operator says otherwise",
    ),
    "cyrus": Preset(
        title="Cyrus",
        fills={},
        wants=_PASSWORD,
        idle="32m",
        notes="Mailboxes may be called INBOX.Name; `maxlogins_per_user` is 0, no limit, unless its operator changed it",
    ),
    "courier": Preset(
        title="Courier",
        fills={},
        wants=_PASSWORD,
        connections=4,
        idle="30m",
        notes="Mailboxes are called INBOX.Name. `MAXPERIP` is 4 in older versions, for all accounts read from one"
        " address. It tells nothing of changes: known mail is compared",
    ),
    "exchange": Preset(
        title="Exchange Server",
        fills={},
        wants="the password; and IMAP switched on for the mailbox, which it is not by default",
        connections=16,
        idle="30m",
        notes="Mailboxes are called as the user's language has it, and no roles are said: write `incoming.roles`."
        " It tells nothing of changes: known mail is compared",
    ),
}


def keeps_sent(host: str) -> bool:
    """Whether an SMTP server puts what it takes into the sender's Sent mailbox, whatever preset an account has."""
    return any(one.keeps_sent and one.fills["outgoing"]["smtp"]["host"] == host for one in PRESETS.values())


def needs(preset: str | None, grant: str | None) -> str:
    """What a provider wants, by password or by a grant, and what it is like; empty where nothing is known."""
    known = PRESETS.get(preset or "")
    if known is None:
        return ""
    consent = known.oauth2.get(grant or "")
    said = [f"{known.title} wants {consent.wants if consent else known.wants}"]
    said += [f"{known.connections} connections at once"] if known.connections else []
    said += [known.notes] if known.notes else []
    return ". ".join(said)


def login_remedy(preset: str | None, grant: str | None) -> str:
    """What may help an account whose login is refused, by password or by a grant; empty where nothing is known."""
    known = PRESETS.get(preset or "")
    if known is None:
        return ""
    if grant is None:
        return f"check `username` and `password`; {known.title} wants {known.wants}"
    consent = known.oauth2.get(grant)
    return f"check `username` and `oauth2`; {known.title} wants {consent.wants}" if consent else ""
