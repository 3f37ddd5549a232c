"""What real servers say otherwise than one would think: each in a few lines, as it came, read however it comes."""

import pytest

from service.errors import AuthRefused, Permanent, Transient
from service.imap.grammar import (
    Condition,
    FetchData,
    Listed,
    Response,
    Search,
    Status,
    StatusData,
    Value,
    Vanished,
    parse_modseq,
)
from service.imap.identity import Labelling, email_id_of, thread_id_of
from service.imap.refusals import NoMailbox, refused_command, refused_login, refused_request
from tests.imap.corpora import differences, read

ITEMS: dict[str, Value] = {"UID": b"7", "FLAGS": [b"\\Seen"]}


HAS_NO_CHILDREN = frozenset({"\\hasnochildren"})
SAID: dict[str, tuple[str, Response]] = {
    "Dovecot: a mailbox called NIL": (
        '* LIST (\\HasNoChildren) "." NIL',
        Listed(HAS_NO_CHILDREN, ".", b"NIL"),
    ),
    "Dovecot: the same": ("* STATUS NIL (MESSAGES 3)", StatusData(b"NIL", {"MESSAGES": b"3"})),
    "Dovecot: a literal as a name": ("* STATUS {3}\r\na b (MESSAGES 3)", StatusData(b"a b", {"MESSAGES": b"3"})),
    "Domino: brackets round a pair": (
        "* 2 FETCH (UID 7 (ENVELOPE NIL) FLAGS (\\Seen))",
        FetchData(2, ITEMS | {"ENVELOPE": None}),
    ),
    "Domino: a backslash as delimiter": ('* LIST () "\\\\" Inbox', Listed(frozenset(), "\\", b"Inbox")),
    "Yandex: no value at the end": ("* 2 FETCH (UID 7 FLAGS (\\Seen) BODY[2] )", FetchData(2, ITEMS)),
    "Zoho: a modseq below zero": (
        "* 2 FETCH (MODSEQ (-1) FLAGS (\\Seen) UID 7)",
        FetchData(2, ITEMS | {"MODSEQ": [b"-1"]}),
    ),
    "Gmail: a quoted body": (
        '* 2 FETCH (UID 7 BODY[1.TEXT]<0> "a b")',
        FetchData(2, {"UID": b"7", "BODY[1.TEXT]<0>": b"a b"}),
    ),
    "AOL: names with dots": (
        "* 2 FETCH (UID 7 XAOL.SPAM.REASON 0 FLAGS (\\Seen))",
        FetchData(2, ITEMS | {"XAOL.SPAM.REASON": b"0"}),
    ),
    "Dovecot: ESEARCH with PARTIAL": ('* ESEARCH (TAG "a") UID PARTIAL (100:110 NIL)', Search([], tag="a")),
    "Dovecot: ESEARCH with RELEVANCY": (
        '* ESEARCH (TAG "a") UID MIN 2 ALL 2:3,9 RELEVANCY (1 2)',
        Search([2], b"2:3,9", tag="a"),
    ),
    "any: lower case": ("* vanished (earlier) 5", Vanished(True, b"5")),
}


@pytest.mark.parametrize("server", SAID)
def test_it_is_read(server: str) -> None:
    wire, expected = SAID[server]
    line = wire.encode() + b"\r\n"
    assert read([line]).responses == [expected]
    assert differences(line) == []


def test_a_modseq_below_zero_is_none() -> None:
    assert parse_modseq([b"-1"]) == 0


@pytest.mark.parametrize(
    ("items", "email_id", "thread_id"),
    [
        ("EMAILID (M4fdc09b49ea629) THREADID NIL", "M4fdc09b49ea629", ""),
        ("THREADID (T64b478a75b7ea9) EMAILID (M5)", "M5", "T64b478a75b7ea9"),
        ("X-GM-THRID 1592225494819146101 X-GM-MSGID 1278455344230334865", "1278455344230334865", "1592225494819146101"),
        ("EMAILID (a b) THREADID ()", "", ""),
        ('EMAILID ("ü") THREADID (x y)', "", ""),
        ("EMAILID NIL", "", ""),
    ],
)
def test_an_identity_is_read_and_what_is_none_is_none(items: str, email_id: str, thread_id: str) -> None:
    (data,) = read([f"* 1 FETCH (UID 1 {items})\r\n".encode()]).responses
    assert isinstance(data, FetchData)
    assert (email_id_of(data.items), thread_id_of(data.items)) == (email_id, thread_id)


BY_ROLE = {"inbox": "INBOX", "all": "Alle", "trash": "Papierkorb", "sent": "Gesendet"}


@pytest.mark.parametrize(
    ("wire", "flags", "mailboxes"),
    [
        ('("Test Messages" "\\\\Important")', {"Test_Messages", "$Important"}, {"Here", "Test Messages", "Alle"}),
        ('(\\Important "Custom Label" NIL)', {"Custom_Label", "$Important"}, {"Here", "Custom Label", "Alle"}),
        ('("\\\\Inbox" "\\\\Sent" "\\\\Muted")', set(), {"Here", "INBOX", "Gesendet", "Alle"}),
        ('("\\\\Trash")', set(), {"Here", "Papierkorb"}),
        ("(B&APw-ro)", {"B&APw-ro"}, {"Here", "Büro", "Alle"}),
        ('("Büro")', {"B&APw-ro"}, {"Here", "Büro", "Alle"}),
        ('("$seen" "a*b%c")', {"_seen", "a_b_c"}, {"Here", "$seen", "a*b%c", "Alle"}),
        ("()", set(), {"Here", "Alle"}),
        ("NIL", set(), set()),
    ],
)
def test_labels_are_flags_and_mailboxes(wire: str, flags: set[str], mailboxes: set[str]) -> None:
    labelling = Labelling("Here", BY_ROLE)
    (data,) = read([f"* 1 FETCH (X-GM-LABELS {wire})\r\n".encode()]).responses
    assert isinstance(data, FetchData)
    for _ in range(2):
        labels = labelling.read(data.items)
        assert (labels.flags, labels.mailboxes) == (flags, mailboxes)


def test_qq_says_of_a_wrong_password_that_it_may_as_well_be_busy() -> None:
    text = (
        "Login fail. Account is abnormal, service is not open, password is incorrect, login frequency limited, "
        "or system is busy. More information at https://help.mail.qq.com/detail/106/985"
    )
    assert type(refused_login(Condition("a1", Status.NO, "", "", text), where="qq")) is AuthRefused


def test_a_name_that_just_went_to_another_mailbox_is_asked_again() -> None:
    # Dovecot 2.3, while a client renamed the mailbox and made another one under its name.
    refused = Condition("a1", Status.NO, "", "", "Mailbox was deleted under us (0.001 + 0.000 secs).")
    assert type(refused_command("EXAMINE", refused, where="a")) is Transient


@pytest.mark.parametrize(
    ("code", "text", "missing"),
    [
        ("NONEXISTENT", "Unknown Mailbox: x (now in authenticated state)", True),  # Gmail
        ("", "Mailbox does not exist", True),  # Cyrus 3.6
        ("", "Mailbox does not exist, or must be subscribed to.", True),  # Courier
        ("NOPERM", "Permission denied, or no such mailbox", False),
        ("", "Permission denied", False),
    ],
)
def test_a_mailbox_that_is_not_there_is_told_from_one_that_nobody_may_open(code: str, text: str, missing: bool) -> None:
    refused = refused_command("EXAMINE", Condition("a1", Status.NO, code, "", text), where="a")
    assert type(refused) is (NoMailbox if missing else Permanent)


def test_words_do_not_say_otherwise_than_a_code_does() -> None:
    missing = Condition("a1", Status.NO, "NONEXISTENT", "", "Mailbox doesn't exist: Too many, Corporate rate")
    assert type(refused_command("SELECT", missing, where="a")) is NoMailbox
    refused = refused_request("SELECT", missing, where="a")
    assert refused.missing
    assert not refused.later
    corporate = Condition("a1", Status.NO, "", "", "no Corporate here")
    assert type(refused_command("SELECT", corporate, where="a")) is Permanent
    busy = Condition("a1", Status.NO, "", "", "server busy")
    assert type(refused_command("SELECT", busy, where="a")) is Transient
