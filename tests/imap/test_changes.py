"""What became of known messages: read from bytes, asked of real Dovecot, and of servers that refuse what they offer."""

import random
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import Sync
from service.errors import PeerError
from service.imap import Changes
from service.imap.grammar import Condition, Exists, Expunged, FetchData, Search, Status, Vanished, parse_response
from service.imap.spans import COUNTED_LIMIT_BYTES, highest, runs_in, total
from service.imap.stir import SEQS_LIMIT, Stir
from service.observe import metrics
from tests.imap.test_session import MAIL, bodies, session
from tests.servers.dovecot import Dovecot
from tests.servers.imap_stub import Connection, ImapStub

# -- bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "response"),
    [
        (b"* VANISHED (EARLIER) 300:310,405", Vanished(True, b"300:310,405")),
        (b"* VANISHED 405", Vanished(False, b"405")),
        (b"* vanished (earlier) 9:7", Vanished(True, b"9:7")),
        (b'* ESEARCH (TAG "a") UID ALL 2,10:15', Search([], b"2,10:15", tag="a")),
        (
            b"* OK [HIGHESTMODSEQ 715194045007] Highest",
            Condition("", Status.OK, "HIGHESTMODSEQ", "715194045007", "Highest"),
        ),
        (
            b"* 5 FETCH (UID 7 FLAGS (\\Seen a) MODSEQ (12))",
            FetchData(5, {"UID": b"7", "FLAGS": [b"\\Seen", b"a"], "MODSEQ": [b"12"]}),
        ),
        (b"* 5 FETCH (UID 7 MODSEQ (12) FLAGS ())", FetchData(5, {"UID": b"7", "FLAGS": [], "MODSEQ": [b"12"]})),
        (b"* 5 FETCH (UID 7 FLAGS (\\Seen))", FetchData(5, {"UID": b"7", "FLAGS": [b"\\Seen"]})),
        (b"* 5 FETCH (MODSEQ (12) FLAGS ())", FetchData(5, {"FLAGS": [], "MODSEQ": [b"12"]})),
    ],
)
def test_a_response_of_rfc_7162_is_read(line: bytes, response: object) -> None:
    assert parse_response([line]) == response


@pytest.mark.parametrize("line", [b"* VANISHED", b"* VANISHED (EARLIER)"])
def test_vanished_without_numbers_ends_the_connection(line: bytes) -> None:
    with pytest.raises(PeerError):
        parse_response([line])


@pytest.mark.parametrize("text", [b"1:*", b"1,,2", b"1,", b"1:2:3", b"-1", b"x"])
def test_what_is_no_set_is_refused_whoever_wants_it(text: bytes) -> None:
    with pytest.raises(PeerError):
        runs_in([text])
    with pytest.raises(PeerError):
        total(text)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 5)), min_size=1, max_size=20), st.integers(1, 60))
def test_a_set_is_read_as_runs_each_number_once_and_cut(pairs: list[tuple[int, int]], first: int) -> None:
    text = ",".join(f"{low}:{low + more}" if more % 2 else f"{low + more}:{low}" for low, more in pairs).encode()
    runs = runs_in([text, b"7"], first, 50)
    named = {n for low, more in pairs for n in range(low, low + more + 1)}
    assert [n for run in runs for n in run] == sorted(n for n in named | {7} if first <= n <= 50)
    assert all(one.stop < other.start for one, other in pairwise(runs))
    assert total(text) == sum(more + 1 for _, more in pairs)


@given(st.binary(max_size=30))
def test_any_bytes_are_a_set_or_a_refusal(text: bytes) -> None:
    with suppress(PeerError):
        runs_in([text])
    with suppress(PeerError):
        total(text)


def test_a_long_set_in_any_order_is_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.imap.spans.AT_ONCE_BYTES", 100)
    numbers = list(range(1, 4000, 2))
    random.Random(7).shuffle(numbers)
    assert runs_in([",".join(map(str, numbers)).encode()]) == [range(n, n + 1) for n in range(1, 4000, 2)]
    assert runs_in([b"1:4294967295," * 999 + b"0:9999999999"]) == [range(1, 2**32)]
    monkeypatch.setattr("service.imap.spans.RUNS_LIMIT", 1000)
    with pytest.raises(PeerError, match="over 1000 runs"):
        runs_in([",".join(map(str, numbers)).encode()])


@given(st.sets(st.integers(1, 60)), st.integers(1, 20))
def test_the_highest_of_runs_are_taken_and_no_more_of_them_made(numbers: set[int], limit: int) -> None:
    runs = runs_in([",".join(map(str, numbers)).encode()])
    assert highest(runs, limit) == sorted(numbers)[-limit:]
    assert highest([*runs, range(100, 2**32)], limit) == list(range(2**32 - limit, 2**32))


# -- what is said unasked -----------------------------------------------------------------------------------------


def heard(*lines: bytes, asked: tuple[int, int] | None = None) -> Stir:
    stir = Stir(asked=None if asked is None else lambda _seq, uid: asked[0] <= uid <= asked[1])
    for line in lines:
        stir.hear(parse_response([line]))
    return stir


def test_flags_and_expunges_that_nobody_asked_for_are_noted() -> None:
    assert not heard(b"* 3 EXISTS", b"* 1 FETCH (UID 1 FLAGS () RFC822.SIZE 3)", b"* 1 FETCH (UID 1 BODY[] NIL)")
    flags = heard(b"* 3 FETCH (FLAGS (\\Seen))", b"* 2 FETCH (UID 9 MODSEQ (77) FLAGS ())")
    assert (flags.flags, flags.gone, flags.seqs, flags.modseq) == (True, False, {2, 3}, 77)
    gone = heard(b"* 3 FETCH (FLAGS (\\Seen))", b"* 1 EXPUNGE", b"* OK [HIGHESTMODSEQ 80] Highest")
    assert (gone.flags, gone.gone, gone.seqs, gone.modseq) == (True, True, set(), 80)
    # RFC 7162 6: what the server calls the highest counts, also below what was seen.
    assert heard(b"* 2 FETCH (UID 9 MODSEQ (90) FLAGS ())", b"a OK [HIGHESTMODSEQ 80] Done").modseq == 80
    assert heard(b"* VANISHED 5").gone
    assert not heard(b"* VANISHED (EARLIER) 5")


def test_an_answer_about_flags_is_no_notice_and_one_without_a_uid_is() -> None:
    assert not heard(b"* 3 FETCH (UID 3 FLAGS (\\Seen))", asked=(1, 5))
    assert heard(b"* 3 FETCH (FLAGS (\\Seen))", asked=(1, 5)).seqs == {3}
    assert heard(b"* 3 FETCH (UID 8 FLAGS (\\Seen))", asked=(1, 5)).seqs == {3}


def test_what_is_noted_is_bounded() -> None:
    stir = heard(*[b"* %d FETCH (FLAGS ())" % n for n in range(1, 5 * SEQS_LIMIT)])
    assert len(stir.seqs) == SEQS_LIMIT + 1
    stir.clear()
    assert not stir


# -- on Dovecot ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("habit", "sync", "vanished", "whole"),
    [
        ("qresync", Sync.QRESYNC, [range(2, 3)], False),
        ("condstore", Sync.CONDSTORE, None, False),
        ("snapshot", Sync.SNAPSHOT, None, True),
        ("old", Sync.SNAPSHOT, None, True),
    ],
)
async def test_what_changed_since_is_asked_as_the_server_offers(
    dovecot_that: Callable[[str], Dovecot],
    prefix: str,
    habit: str,
    sync: Sync,
    vanished: list[range] | None,
    whole: bool,
) -> None:
    server = dovecot_that(habit)
    await server.append(prefix, [MAIL] * 5)
    async with session(server.imap, username=prefix) as opened:
        changes = Changes(opened)
        selected = await changes.open("INBOX")
        assert changes.sync is sync
        assert (selected.highestmodseq > 0) is (sync is not Sync.SNAPSHOT)
        with server.client(prefix) as client:
            client.select("INBOX")
            client.uid("STORE", "4", "+FLAGS", r"(\Seen)")
            client.uid("STORE", "2", "+FLAGS", r"(\Deleted)")
            client.expunge()
        await opened.noop()
        assert opened.stir.gone
        assert opened.stir.flags
        assert opened.exists == 4
        opened.stir.clear()
        found = await changes.flags(1, 5, selected.highestmodseq)
        rows = {row.uid: row.flags - {"\\Recent"} for row in found.rows}
        assert rows[4] == {"\\Seen"}
        assert set(rows) == ({1, 3, 4, 5} if whole else {4})
        assert (found.vanished, found.whole) == (vanished, whole)
        assert not opened.stir
        assert [n for run in await changes.present(1, 5) for n in run] == [1, 3, 4, 5]
        assert [row.uid for row in await changes.flags_of({2, 4})] == [3, 5]


async def test_a_mailbox_that_is_empty_says_so(dovecot: Dovecot, prefix: str) -> None:
    async with session(dovecot.imap, username=prefix) as opened:
        changes = Changes(opened)
        await changes.open("INBOX")
        assert await changes.present(1, 100) == []
        assert (await changes.flags(1, 100, 0)).rows == []


# -- servers that refuse ------------------------------------------------------------------------------------------


@pytest.mark.fault("A16")
async def test_enable_that_is_refused_leaves_condstore(imap_stub: ImapStub) -> None:
    async def enable(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} BAD no\r\n")
        return True

    imap_stub.capabilities += " ENABLE QRESYNC CONDSTORE"
    imap_stub.hooks["ENABLE"] = enable
    imap_stub.highestmodseq = 5
    async with session(imap_stub.port) as opened:
        changes = Changes(opened)
        assert (await changes.open("INBOX")).highestmodseq == 5
        assert (changes.sync, changes.refused) == (Sync.CONDSTORE, ["QRESYNC"])


@pytest.mark.fault("A16")
async def test_condstore_that_is_refused_is_done_without(imap_stub: ImapStub) -> None:
    async def examine(connection: Connection, tag: str, arguments: str) -> bool:
        if "CONDSTORE" in arguments:
            await connection.send(f"{tag} BAD what is that\r\n")
        return "CONDSTORE" in arguments

    imap_stub.capabilities += " CONDSTORE"
    imap_stub.hooks["EXAMINE"] = examine
    async with session(imap_stub.port) as opened:
        changes = Changes(opened)
        await changes.open("INBOX")
        assert (changes.sync, changes.refused) == (Sync.SNAPSHOT, ["CONDSTORE"])


@pytest.mark.fault("A16")
async def test_changedsince_that_is_refused_is_done_without(imap_stub: ImapStub) -> None:
    async def fetch(connection: Connection, tag: str, arguments: str) -> bool:
        if "CHANGEDSINCE" in arguments:
            await connection.send(f"{tag} BAD what is that\r\n")
        return "CHANGEDSINCE" in arguments

    imap_stub.capabilities += " CONDSTORE"
    imap_stub.highestmodseq = 9
    imap_stub.messages = {1: MAIL, 2: MAIL}
    imap_stub.hooks["UID FETCH"] = fetch
    async with session(imap_stub.port) as opened:
        changes = Changes(opened)
        await changes.open("INBOX")
        assert changes.sync is Sync.CONDSTORE
        found = await changes.flags(1, 2, 4)
        assert found.whole
        assert [row.uid for row in found.rows] == [1, 2]
        assert (changes.sync, changes.refused) == (Sync.SNAPSHOT, ["CHANGEDSINCE"])


@pytest.mark.fault("A16")
async def test_a_mailbox_without_modseqs_is_compared_without_them(imap_stub: ImapStub) -> None:
    imap_stub.capabilities += " CONDSTORE"
    async with session(imap_stub.port) as opened:
        changes = Changes(opened)
        await changes.open("INBOX")
        assert (changes.sync, changes.refused) == (Sync.SNAPSHOT, [])


@pytest.mark.fault("A07")
async def test_a_search_without_a_result_is_no_empty_mailbox(imap_stub: ImapStub) -> None:
    imap_stub.messages = {1: MAIL}

    async def search(connection: Connection, tag: str, arguments: str) -> bool:
        await connection.send(f"{tag} OK done\r\n")
        return True

    imap_stub.hooks["UID SEARCH"] = search
    async with session(imap_stub.port) as opened:
        changes = Changes(opened)
        await changes.open("INBOX")
        with pytest.raises(PeerError, match="without a result"):
            await changes.present(1, 5)


@pytest.mark.fault("A07")
async def test_a_count_that_shrinks_without_expunge_is_counted_and_looked_at(imap_stub: ImapStub) -> None:
    before = metrics.PROTOCOL_VIOLATION.labels(kind="exists_shrank")._value.get()
    async with session(imap_stub.port) as opened:
        opened.count(Exists(5))
        opened.count(Expunged(2))
        assert opened.exists == 4
        opened.stir.clear()
        opened.count(Exists(3))
        assert opened.stir.gone
    assert metrics.PROTOCOL_VIOLATION.labels(kind="exists_shrank")._value.get() == before + 1


async def test_vanished_lowers_the_count(imap_stub: ImapStub) -> None:
    async with session(imap_stub.port) as opened:
        opened.count(Exists(5))
        opened.count(Vanished(False, b"3:4,9"))
        opened.count(Vanished(True, b"1:100"))
        assert opened.exists == 2
        with pytest.raises(PeerError, match="at once"):
            opened.count(Vanished(False, b"1," * COUNTED_LIMIT_BYTES + b"1"))


@pytest.mark.fault("A10", "A11")
async def test_a_body_under_a_number_that_moved_meanwhile_is_nobodys(imap_stub: ImapStub) -> None:
    async def fetch(connection: Connection, tag: str, _arguments: str) -> bool:
        await connection.send(
            "* 2 FETCH (UID 9 FLAGS ())\r\n* 1 EXPUNGE\r\n* 2 FETCH (BODY[] {2}\r\nzz)\r\n"
            f"* 1 FETCH (UID 9 BODY[] {{2}}\r\nab)\r\n{tag} OK done\r\n"
        )
        return True

    imap_stub.hooks["UID FETCH"] = fetch
    async with session(imap_stub.port) as opened:
        await opened.examine("INBOX")
        assert await bodies(opened, [9]) == {9: b"ab"}
