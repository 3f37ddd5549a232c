"""Codes and words that one provider alone uses → why. Data, from what the providers publish. Pure.

A row counts where the host that refused, the recipient's domain or the host that reports ends with one of the names.
"""

import re
from dataclasses import dataclass
from typing import Final

from service.contract import Reason


@dataclass(frozen=True, slots=True)
class _Provider:
    """`hosts`: ends of names; `by_code`: the first group is looked up; `by_words`: in their order."""

    hosts: tuple[str, ...]
    code: re.Pattern[str] | None
    by_code: dict[str, Reason]
    by_words: tuple[tuple[re.Pattern[str], Reason], ...]


def _words(**by_reason: str) -> tuple[tuple[re.Pattern[str], Reason], ...]:
    return tuple((re.compile(words), Reason(reason)) for reason, words in by_reason.items())


def _codes(**by_reason: str) -> dict[str, Reason]:
    return {code: Reason(reason) for reason, codes in by_reason.items() for code in codes.split()}


# https://learn.microsoft.com/exchange/mail-flow-best-practices/non-delivery-reports-in-exchange-online
_MICROSOFT: Final = _Provider(
    (".outlook.com", ".onmicrosoft.com", ".exchangelabs.com", ".office365.com"),
    re.compile(r"\b[45]\.7\.([0-9]{2,3})\b"),
    _codes(
        authfailure="23 26 509 515",
        blocked="506 507 510 511 513 25",
        rejected="501 502 503 12 124 133 134 135 136 512 750 520",
        speeding="508",
        suspend="504 505",
        failedstarttls="51 321 322 323 324 325",
        norelaying="64",
        securityerror="57",
    ),
    _words(
        userunknown=(
            r"recipient address rejected: access denied|resolver\.adr\.(?:ex)?recip|5\.1\.351"
            r"|recipient not found"
        ),
        spamdetected=r"content filter agent quarantined|\(s20[0-9]{2}\)",
        blocked=(
            r""
            r"(?:banned sending ip|part of their network is on our block list|\(s3[0-9]{3}\)|\(s77\d\)|\[s3\d\d\d\])"
        ),
        rejected=r"resolver\.rst\.(?:sender|authreq|restrict)|sender was not authenticated",
        filtered=r"resolver\.rst\.notauthorized",
        mesgtoobig=r"resolver\.rst\.sizelimit",
        exceedlimit=r"resolver\.rst\.recipsizelimit",
        speeding=(
            r"daily limit for message recipients|submission quota exceeded|per hour message receive limit"
            r"|recipient thread limit"
        ),
        expired=r"[45]\.4\.300\b|message expired",
        networkerror=r"[45]\.4\.312|dns query failed|hop count exceeded|routing loop|[45]\.4\.316|[45]\.4\.14\b",
        badreputation=r"rate limited due to ip reputation",
        norelaying=r"unable to relay|relay access denied",
        policyviolation=r"\b5\.7\.9[0-9]{2}\b|\(as345\)|x-dg-ref header",
        systemerror=r"suspiciousremoteservererror|[45]\.2\.14\b|attr[0-9]+|server busy|temporary server error",
        toomanyconn=r"maximum number of connections",
    ),
)
# https://support.google.com/a/answer/3726730
_GOOGLE: Final = _Provider(
    ("google.com", "gmail.com", "googlemail.com"),
    None,
    {},
    _words(
        authfailure=r"[45]\.7\.(?:24|26|27|30|32)\b",
        requireptr=r"[45]\.7\.25\b|\b4\.7\.23\b|ptr record",
        failedstarttls=r"[45]\.7\.29\b|tls required for|must issue a starttls",
        badreputation=r"very low reputation",
        spamdetected=r"likely (?:unsolicited|suspicious)|nature of the content or the links",
        blocked=r"unusual rate of|ip not in whitelist|try again later, closing connection|(?:helo|ehlo) argument",
        speeding=(
            r"receiving mail (?:too quickly|at a rate)|rate that prevents"
            r"|(?:daily|relay|sending) .{0,30}(?:limit|quota) exceeded|rate limited"
        ),
        mailboxfull=r"out of storage space|over quota|email quota exceeded",
        notcompliantrfc=(
            r"rfc 5322 compliant|valid message-id|multiple addresses in from|valid address in the from"
            r"|encoded-word syntax|message is malformed|rfcmessagenoncompliant"
        ),
        policyviolation=r"illegal attachment|blocked because its content|has a policy that prohibited|same message-id",
        norelaying=r"mail relay denied|invalid credentials for relay|not authorized to send email directly",
        networkerror=r"exceeded 50 hops",
        exceedlimit=r"google's (?:message header|limit|header)",
        mesgtoobig=r"google's message size limit",
        suspend=r"tried to reach is (?:disabled|inactive)",
        userunknown=r"tried to reach does not exist|address couldn't be found|unable to receive mail.{0,20}nosuchuser",
    ),
)
# https://senders.yahooinc.com/smtp-error-codes
_YAHOO: Final = _Provider(
    (".yahoodns.net", "yahoo.com", "aol.com"),
    None,
    {},
    _words(
        authfailure=r"requires all senders to authenticate|dmarc",
        blocked=r"\[(?:bl|ph01|pbl)[0-9]*\]|spamhaus",
        policyviolation=r"not accepted for policy reasons",
        notcompliantrfc=r"not rfc compliant",
        speeding=r"receiving mail too quickly",
        badreputation=r"user complaints",
        rejected=r"permanently deferred|unresolvable rfc ?\.?5321 (?:from )?domain|\[ts[0-9]{2}\]",
        toomanyconn=r"max message per connection",
        suspend=r"mailbox is disabled|no longer valid",
        userunknown=r"doesn't have a|mailbox not found",
    ),
)
_APPLE: Final = _Provider(
    (".icloud.com", ".apple.com", ".me.com"),
    None,
    {},
    _words(
        authfailure=r"dmarc policy|failing both spf and dkim",
        blocked=r"spamhaus|dnsbl-lookup|not accepting connections|\[hm0[0-9]\]",
        policyviolation=r"due to local policy|\[cs01\]",
        speeding=r"excessive volume",
        notaccept=r"does not accept mail",
        hasmoved=r"no longer on server",
        userunknown=r"inactive email address|user does not exist|unknown or illegal alias",
    ),
)
# https://postmaster.orange.fr: OFR004_104, LPN007_401, OUK_513.
_ORANGE: Final = _Provider(
    (".orange.fr", ".wanadoo.fr", ".laposte.net", ".sfr.fr"),
    re.compile(r"\b(?:ofr|lpn|ouk)[a-z0-9]*[_-]([0-9]{3})\b"),
    _codes(
        blocked="101 102 103 510 999 201", toomanyconn="104 109", securityerror="305 402", authfailure="401 517",
        rejected="403 405 415 421", userunknown="416 418", mailboxfull="417", suspend="420 426", systemerror="505",
        spamdetected="506", mesgtoobig="514", policyviolation="630",
    ),
    _words(authfailure=r"spf/dns de votre nom de domaine"),
)  # fmt: skip
# https://www.facebook.com/postmaster/response_codes
_FACEBOOK: Final = _Provider(
    (".facebook.com",),
    re.compile(r"\b((?:pol|msg|rcp|int|dns|con)-[pt][0-9])\b"),
    _codes(
        authfailure="pol-p7", blocked="pol-p1 pol-p2 pol-p3 pol-p4 pol-t1 pol-t2 pol-t3", contenterror="msg-p2",
        filtered="rcp-p2 rcp-p3", mesgtoobig="msg-p1 int-p2", notcompliantrfc="msg-p3", rejected="dns-p1 dns-p2 dns-t1",
        requireptr="dns-p3 dns-t2", spamdetected="pol-p6", suspend="rcp-t4", systemerror="rcp-t1",
        toomanyconn="con-t1 con-t2 con-t3 con-t4 msg-t1", userunknown="rcp-p1 int-p1 int-p3 int-p4",
        virusdetected="pol-p5",
    ),
    (),
)  # fmt: skip
# https://www.godaddy.com/help/what-does-my-email-bounceback-mean-3568
_GODADDY: Final = _Provider(
    (".secureserver.net",),
    re.compile(r"\b(ib[0-9]{3})\b"),
    _codes(
        securityerror="ib401", notcompliantrfc="ib501 ib502", rejected="ib506", authfailure="ib508", requireptr="ib108",
        spamdetected="ib212", virusdetected="ib705", toomanyconn="ib605 ib007", speeding="ib101 ib504 ib510 ib607",
        blocked="ib110 ib111 ib112 ib113 ib104 ib105 ib106", badreputation="ib103",
    ),
    _words(
        blocked=r"rbl reject|spamhaus\.org/query",
        expired=r"queue too long|delivery timeout",
        mailboxfull=r"account storage limit|mailfolder is full",
        spamdetected=r"spam or virus content",
        suspend=r"account disabled",
        systemerror=r"message is looping",
        userunknown=r"recipient not found|account does not exist",
    ),
)  # fmt: skip
# https://www.cox.com/residential/support/email-error-codes.html
_COX: Final = _Provider(
    ("cox.net",),
    re.compile(r"\b(cxbl|cxdns|cxsndr|cxsmtp|cxcnct|cxmxrt|cdrbl|cxthrt|cxmj|ipbl|urlbl)[0-9]*\b"),
    _codes(
        blocked="cxbl cdrbl ipbl", requireptr="cxdns", authfailure="cxsndr", rejected="cxsmtp",
        toomanyconn="cxcnct cxmxrt",
        securityerror="cxthrt cxmj", spamdetected="urlbl",
    ),
    _words(
        blocked=r"too many bad commands|too many invalid recipients",
        requireptr=r"dns check failure|no rdns",
        policyviolation=r"no data before greeting|attachment extension",
        rejected=r"sender rejected",
        toomanyconn=r"too many sessions|try again later|threshold exceeded",
        userunknown=r"recipient rejected|user unknown|invalid recipient",
    ),
)  # fmt: skip
# https://community.mimecast.com: Mimecast SMTP error codes.
_MIMECAST: Final = _Provider(
    (".mimecast.com",),
    None,
    {},
    _words(
        authfailure=r"(?:spf|dkim|dmarc) sender invalid",
        badreputation=r"internal resources are temporarily unavailable|ip reputation",
        blocked=r"sender address blocked|recipient temporarily unavailable|ip temporarily blacklisted",
        failedstarttls=r"requires (?:encryption|tls version|high-strength)",
        mesgtoobig=r"maximum email size exceeded",
        norelaying=r"open relay (?:is )?not allowed",
        policyviolation=r"anti-spoofing policy|content examination policy|host network,? not allowed",
        rejected=r"administrative prohibition|envelope (?:blocked|rejected)|blocked senders",
        virusdetected=r"rejected due to security policies",
        userunknown=r"invalid recipient|user unknown|invalid address",
    ),
)
# https://service.mail.qq.com/detail/122: Tencent.
_TENCENT: Final = _Provider(
    (".qq.com",),
    None,
    {},
    _words(
        authfailure=r"(?:spf|dmarc) check failed",
        blocked=r"suspected bounce attacks|suspected spam ip|connection denied",
        mesgtoobig=r"message too large",
        spamdetected=r"spam is embedded|mail content denied",
        rejected=r"suspected spam|rejected by recipients",
        speeding=r"mailbox unavailable or access deni",
        suspend=r"deactivated mailbox",
        toomanyconn=r"frequency limited",
        userunknown=r"mailbox not found",
    ),
)
# mail.i.ua/err/2/
_I_UA: Final = _Provider(
    (".email.ua", "i.ua"),
    re.compile(r"\.i\.ua/err/([0-9]{1,2})/"),
    _codes(
        norelaying="1 6",
        userunknown="2",
        suspend="3",
        mailboxfull="4",
        toomanyconn="5",
        blocked="7 9",
        rejected="8",
        filtered="10",
    ),
    (),
)
_DOCOMO: Final = _Provider(
    (".docomo.ne.jp", "docomo.ne.jp"),
    None,
    {},
    _words(
        mailboxfull=r"too much mail data",
        toomanyconn=r"too many recipients",
        syntaxerror=r"bad sequence of commands|parameter not implemented",
        # It says the same of whom it does not know and of whom its customer does not want: when tells them apart.
        filtered=r"^5\.2\.0 .*unknown user",
        rejected=r"unknown user .*/data$",
    ),
)
_KDDI: Final = _Provider(
    ("ezweb.ne.jp", ".au.com"), None, {}, _words(filtered=r"550 : user unknown", userunknown=r">: user unknown")
)
_MESSAGELABS: Final = _Provider(
    (".messagelabs.com",),
    None,
    {},
    _words(securityerror=r"turn on smtp authentication", userunknown=r"542 .{0,80}rejected|no such user"),
)
# Charter and Spectrum: AUP#In-1310.
_SPECTRUM: Final = _Provider(
    ("charter.net", "rr.com", "spectrum.net"),
    re.compile(r"\baup#(?:in-|out-|i-|o-)?([0-9]{2})[0-9]{2}\b"),
    _codes(
        blocked="10 12", requireptr="11", toomanyconn="13", speeding="14", rejected="15",
    ),
    (),
)  # fmt: skip
# Amazon refuses senders that it does not know: it is asked to relay.
_AMAZON: Final = _Provider(
    (".amazonaws.com", ".amazonses.com"), None, {}, _words(norelaying=r"email address is not verified")
)
# Nobody writes to a group that is not there, or that one may not write to; the notice is in the reader's language.
_GROUPS: Final = _Provider(("googlegroups.com",), None, {}, _words(userunknown=r"5\.1\.1|tried to reach", rejected=r""))
PROVIDERS: Final = (
    _MICROSOFT, _GOOGLE, _YAHOO, _APPLE, _ORANGE, _FACEBOOK, _GODADDY, _COX, _MIMECAST, _TENCENT, _I_UA, _DOCOMO, _KDDI,
    _MESSAGELABS, _SPECTRUM, _AMAZON, _GROUPS,
)  # fmt: skip


def by_provider(text: str, status: str, command: str, hosts: tuple[str, ...]) -> Reason | None:
    """`text` in lower case; `command`: which one was refused, "" where nothing says it.

    `hosts`: who refused, the recipient, who reports, the nearest first.
    """
    for host in hosts:
        words = host.lower().split(None, 1)
        if not words:
            continue
        name = words[0].rstrip(".>;")
        for provider in PROVIDERS:
            if name.endswith(provider.hosts):
                found = _asked(provider, f"{status} {text} /{command.lower()}")
                if found is not None:
                    return found
    return None


def _asked(provider: _Provider, text: str) -> Reason | None:
    if provider.code is not None:
        for found in provider.code.finditer(text):
            reason = provider.by_code.get(found[1])
            if reason is not None:
                return reason
    for words, reason in provider.by_words:
        if words.search(text) is not None:
            return reason
    return None
