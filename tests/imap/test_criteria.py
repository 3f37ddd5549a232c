"""Filters → search keys: what is meant, on one line whatever the text, and exact about moments."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract import Comparator, Filter, RequestProblems, check_filter, decode_body
from service.contract.commands import SearchRequest
from service.imap.criteria import NOTHING, Moment, Near, charset, criteria, moment_keys, moments, sort_keys, sortable
from service.imap.encode import Argument, Cut, Literal, cut
from service.imap.grammar import parse_values

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
T = datetime(2026, 3, 1, 10, 30, tzinfo=UTC)
EVERYTHING = frozenset({"LITERAL+"})
NONE = Near("", "")


def keys(filter: Filter | None, *, utf8: bool = False, near: Near = NONE) -> list[Argument]:
    named = moments(filter)
    return criteria(
        filter,
        utf8=utf8,
        keys={moment: moment_keys(moment, now=NOW, within=False) for moment in named},
        near=dict.fromkeys(named, near),
    )


def line(filter: Filter | None, **more: Any) -> str:
    return cut(keys(filter, **more), EVERYTHING).first


@pytest.mark.parametrize(
    ("filter", "wire"),
    [
        (None, "ALL"),
        (Filter(), "ALL"),
        (Filter(subject="hi"), 'SUBJECT "hi"'),
        (
            Filter(text="a", from_="b", to="c", cc="d", bcc="e", body="f"),
            '(TEXT "a" FROM "b" TO "c" CC "d" BCC "e" BODY "f")',
        ),
        (Filter(min_size=100), "LARGER 99"),
        (Filter(min_size=0), "ALL"),
        (Filter(max_size=100), "SMALLER 100"),
        (Filter(max_size=0), NOTHING),
        (Filter(min_size=2**40), NOTHING),
        (Filter(max_size=2**40), "ALL"),
        (Filter(has_keyword="$seen"), "SEEN"),
        (Filter(not_keyword="$Flagged"), "NOT FLAGGED"),
        (Filter(has_keyword="$forwarded"), "KEYWORD $forwarded"),
        (Filter(header=["X-Ticket"]), 'HEADER "X-Ticket" ""'),
        (Filter(header=["X-Ticket", 'a"b\\c']), 'HEADER "X-Ticket" "a\\"b\\\\c"'),
        (Filter(operator="AND", conditions=[Filter(subject="a"), Filter(body="b")]), '(SUBJECT "a" BODY "b")'),
        (Filter(operator="AND", conditions=[]), "ALL"),
        (Filter(operator="OR", conditions=[]), NOTHING),
        (Filter(operator="NOT", conditions=[]), "ALL"),
        (Filter(operator="OR", conditions=[Filter(to=x) for x in "abc"]), 'OR TO "a" OR TO "b" TO "c"'),
        (
            Filter(operator="NOT", conditions=[Filter(subject="a", to="b"), Filter(body="c")]),
            'NOT OR (TO "b" SUBJECT "a") BODY "c"',
        ),
        (Filter(after=T), "SINCE 3-Mar-2026"),
        (Filter(before=T), "BEFORE 28-Feb-2026"),
    ],
)
def test_a_filter_is_these_search_keys(filter: Filter | None, wire: str) -> None:
    assert line(filter) == wire


def test_messages_near_a_moment_are_named() -> None:
    near = Near("7:9", "4")
    assert line(Filter(after=T), near=near) == "OR SINCE 3-Mar-2026 UID 7:9"
    both = Filter(operator="NOT", conditions=[Filter(before=T)])
    assert line(both, near=near) == "NOT OR BEFORE 28-Feb-2026 UID 4"


def test_the_days_of_a_moment_hold_in_every_time_zone() -> None:
    day = moment_keys(T, now=NOW, within=False)
    assert day == Moment("SINCE 3-Mar-2026", "BEFORE 28-Feb-2026", "SINCE 28-Feb-2026 BEFORE 3-Mar-2026")


@given(st.integers(-(10**6), 10**10))
def test_within_is_used_only_where_its_numbers_are_numbers(seconds: int) -> None:
    try:
        moment = NOW - timedelta(seconds=seconds)
    except OverflowError:
        return
    if not 1902 <= moment.year < 9998:
        return
    found = moment_keys(moment, now=NOW, within=True)
    if found.near.startswith("YOUNGER"):
        young, old = int(found.later.split()[1]), int(found.earlier.split()[1])
        assert 0 < young < seconds < old < 2**32
        assert found.near == f"YOUNGER {old} OLDER {young}"
    else:
        assert found.near.startswith("SINCE")


def test_text_that_is_not_ascii_goes_as_a_literal_with_its_charset() -> None:
    found = keys(Filter(subject="Grüße", body="x"))
    assert charset(found, utf8=False) == ["CHARSET UTF-8"]
    assert cut(found, EVERYTHING) == Cut("(SUBJECT {7+}", ["Grüße".encode() + b' BODY "x")'], waits=False)
    assert cut(found, frozenset()).waits
    # RFC 6855 section 3: once enabled, quoted as it is, and no charset.
    enabled = keys(Filter(subject="Grüße"), utf8=True)
    assert enabled == ["SUBJECT", '"Grüße"']
    assert charset(enabled, utf8=True) == []


texts = st.text(max_size=30) | st.sampled_from(
    ["{5}", '"', "\\", "a\r\nA1 DELETE INBOX", "\0", ") UID 1", "{3+}\r\nabc"]
)
conditions = st.builds(
    Filter,
    text=st.none() | texts,
    from_=st.none() | texts,
    header=st.none() | st.lists(texts, min_size=1, max_size=2),
    has_keyword=st.none() | texts,
    after=st.none() | st.datetimes(timezones=st.just(UTC)),
)
filters = st.recursive(
    conditions,
    lambda inner: st.builds(
        Filter, operator=st.sampled_from(["AND", "OR", "NOT"]), conditions=st.lists(inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.fault("G07")
@given(filters, st.booleans(), st.booleans())
def test_any_filter_is_refused_or_one_command(filter: Filter, utf8: bool, plus: bool) -> None:
    if check_filter(filter):
        return
    found = cut(keys(filter, utf8=utf8), EVERYTHING if plus else frozenset())
    literals = [one.data for one in keys(filter, utf8=utf8) if isinstance(one, Literal)]
    assert not set(found.first) & set("\r\n\0")
    # What stands between the literals is one line, and each literal is as long as was said.
    line = found.first
    pieces = [line.encode()]
    for data, rest in zip(literals, found.rest, strict=True):
        assert pieces[-1].endswith(b"{%d%s}" % (len(data), b"+" if plus else b""))
        assert rest.startswith(data)
        pieces[-1] = pieces[-1][: pieces[-1].rindex(b"{")]
        pieces += [data, rest[len(data) :]]
        assert not set(pieces[-1]) & set(b"\r\n\0")
    # A server's parser finds every bracket and quote closed.
    parse_values(pieces, 0)


@pytest.mark.parametrize(
    ("filter", "field"),
    [
        ({"colour": "red"}, "filter.colour"),
        ({"inMailbox": "m1"}, "filter.inMailbox"),
        ({"subject": 1}, "filter.subject"),
        ({"minSize": -1}, "filter.minSize"),
        ({"after": "yesterday"}, "filter.after"),
        ({"operator": "XOR", "conditions": []}, "filter.operator"),
        ({"operator": "AND", "conditions": [{"nope": 1}]}, "filter.conditions[0].nope"),
    ],
)
def test_a_wrong_type_is_said_with_its_field(filter: dict[str, Any], field: str) -> None:
    decoder = msgspec.json.Decoder(SearchRequest)
    with pytest.raises(RequestProblems) as refused:
        decode_body(json.dumps({"mailbox": "INBOX", "filter": filter}).encode(), decoder)
    assert refused.value.problems[0].field == field
    if "unknown" in refused.value.problems[0].message:
        assert "hasKeyword" in refused.value.problems[0].message


DEEP: dict[str, Any] = {}
for _ in range(11):
    DEEP = {"operator": "AND", "conditions": [DEEP]}


@pytest.mark.parametrize(
    ("filter", "field"),
    [
        (Filter(subject="a\r\nb"), "filter.subject"),
        (Filter(header=["X", "\0"]), "filter.header"),
        (Filter(header=["a", "b", "c"]), "filter.header"),
        (Filter(header=["Grüße"]), "filter.header"),
        (Filter(has_keyword="a b"), "filter.hasKeyword"),
        (Filter(not_keyword="\\Seen"), "filter.notKeyword"),
        (Filter(operator="AND"), "filter.conditions"),
        (Filter(conditions=[]), "filter.operator"),
        (Filter(operator="AND", conditions=[], subject="x"), "filter"),
        (Filter(operator="OR", conditions=[Filter(), Filter(to="\n")]), "filter.conditions[1].to"),
        (Filter(operator="OR", conditions=[Filter()] * 101), "filter"),
        (Filter(text="x" * 5000), "filter"),
        (Filter(after=datetime(1, 1, 1, tzinfo=UTC)), "filter.after"),
    ],
)
def test_a_filter_that_cannot_be_looked_for_is_said_with_its_field(filter: Filter, field: str) -> None:
    assert [problem.field for problem in check_filter(filter)] == [field]


def test_a_filter_that_nests_too_deep_is_refused() -> None:
    assert check_filter(msgspec.convert(DEEP, Filter))


def test_a_server_sorts_where_it_does_so_as_jmap_wants() -> None:
    by = msgspec.convert([{"property": "receivedAt", "isAscending": False}, {"property": "from"}], list[Comparator])
    assert sort_keys(by) == "(REVERSE ARRIVAL DISPLAYFROM)"
    assert sortable(by[:1], frozenset({"SORT"}))
    assert not sortable(by, frozenset({"SORT"}))
    assert sortable(by, frozenset({"SORT", "SORT=DISPLAY"}))
    assert not sortable(by[:1], frozenset())
