"""Which replica has which account: even, by capacity, and moving no more than it must."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.fleet import Replica, owner

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=12)
FLEETS = st.dictionaries(NAMES, st.sampled_from([0.1, 0.5, 1.0, 2.0, 100.0]), min_size=1, max_size=8)


def fleet(count: int, *, capacity: float = 1.0) -> list[Replica]:
    return [Replica(f"mailbus-{number}", capacity) for number in range(count)]


def assigned(accounts: Sequence[str], replicas: Sequence[Replica]) -> list[str | None]:
    return [owner(account, replicas) for account in accounts]


def moved(before: Sequence[str | None], after: Sequence[str | None]) -> int:
    return sum(one != other for one, other in zip(before, after, strict=True))


ACCOUNTS = [f"account-{number}" for number in range(10_000)]


def test_nobody_there_nobody_has_it() -> None:
    assert owner("support", []) is None


def test_the_answer_is_the_same_in_all_versions() -> None:
    assert [owner(account, fleet(5)) for account in ("support", "sales", "box", "a", "b")] == [
        "mailbus-2",
        "mailbus-0",
        "mailbus-3",
        "mailbus-2",
        "mailbus-2",
    ]


@given(FLEETS, NAMES, st.randoms(use_true_random=False))
def test_the_order_in_which_replicas_are_known_does_not_matter(
    given_fleet: dict[str, float], account: str, random: Random
) -> None:
    replicas = [Replica(name, capacity) for name, capacity in given_fleet.items()]
    shuffled = list(replicas)
    random.shuffle(shuffled)
    assert owner(account, replicas) == owner(account, shuffled)


@given(FLEETS, st.lists(NAMES, max_size=20))
def test_who_joins_takes_from_others_and_moves_nothing_between_them(
    given_fleet: dict[str, float], accounts: list[str]
) -> None:
    replicas = [Replica(name, capacity) for name, capacity in given_fleet.items()]
    joined = Replica("the-new-one!", 1.0)
    for account in accounts:
        before, after = owner(account, replicas), owner(account, [*replicas, joined])
        assert after in (before, joined.instance)


@given(FLEETS, st.lists(NAMES, max_size=20))
def test_more_capacity_never_takes_an_account_away(given_fleet: dict[str, float], accounts: list[str]) -> None:
    replicas = [Replica(name, capacity) for name, capacity in given_fleet.items()]
    first = replicas[0]
    grown = [Replica(first.instance, first.capacity * 2), *replicas[1:]]
    for account in accounts:
        before, after = owner(account, replicas), owner(account, grown)
        assert after in (before, first.instance)


@pytest.mark.parametrize("count", [2, 3, 10, 30])
def test_ten_thousand_accounts_are_spread_evenly(count: int) -> None:
    counts = Counter(assigned(ACCOUNTS, fleet(count)))
    fair = len(ACCOUNTS) / count
    assert len(counts) == count
    # Binomial: five standard deviations either way.
    assert all(abs(have - fair) < 5 * fair**0.5 for have in counts.values())


def test_a_hundred_replicas_share_and_one_that_joins_or_leaves_moves_its_share_only() -> None:
    replicas = fleet(100)
    before = assigned(ACCOUNTS, replicas)
    counts = Counter(before)
    assert max(counts.values()) < 2 * min(counts.values())
    joined = assigned(ACCOUNTS, fleet(101))
    assert moved(before, joined) == Counter(joined)["mailbus-100"]
    some = ACCOUNTS[:1_000]
    left = assigned(some, replicas[1:])
    assert moved(before[:1_000], left) == Counter(before[:1_000])["mailbus-0"]
    for share in (Counter(joined)["mailbus-100"], counts["mailbus-0"]):
        assert 0.5 / 100 < share / len(ACCOUNTS) < 1.5 / 100


@pytest.mark.parametrize("count", [2, 5, 20])
def test_the_moved_share_is_one_part_of_all(count: int) -> None:
    before, after = assigned(ACCOUNTS, fleet(count - 1)), assigned(ACCOUNTS, fleet(count))
    fair = 1 / count
    assert abs(moved(before, after) / len(ACCOUNTS) - fair) < 5 * (fair / len(ACCOUNTS)) ** 0.5


def test_capacity_weighs() -> None:
    replicas = [Replica("small", 1), Replica("middle", 2), Replica("large", 5)]
    counts = Counter(assigned(ACCOUNTS, replicas))
    for replica in replicas:
        assert counts[replica.instance] / len(ACCOUNTS) == pytest.approx(replica.capacity / 8, abs=0.025)
