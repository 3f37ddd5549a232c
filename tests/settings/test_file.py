"""The YAML file itself: what is no YAML, what would grow, what says a thing twice."""

import time
from pathlib import Path

import pytest

from service.settings import SettingsInvalid, load_settings
from tests.settings.conftest import Load, Problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nats:\n  prefix: a\n prefix: b\n", "line 3, column 2: no valid YAML: "),
        ("nats: {prefix: a\nhttp: {}\n", "line 2, column 5: no valid YAML: "),
        ("nats:\n  prefix: a\n  prefix: b\n", "line 3: the key prefix stands here twice"),
        ("accounts:\n  - {id: a, id: b}\n", "line 2: the key id stands here twice"),
        ("nats: {}\nnats: {}\n", "line 2: the key nats stands here twice"),
        ("? [a]\n: b\n", "line 1: a key must be a name"),
        ("nats: {password: &a}\n", "line 1: an anchor (&) and an alias (*) belong together: put text"),
        ("nats: {prefix: *a}\n", "line 1: an anchor (&) and an alias (*) belong together: put text"),
        ("a: &a [*a]\n", "line 1: an anchor (&) and an alias (*) belong together"),
        ("a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20, "line 2: nested deeper than 32 levels"),
        ("a: {<<: {b: 1}}\n", "line 1: a key must be a name"),
        ("a: !!python/object/apply:os.system [id]\n", "line 1: put text that begins with ! in quotes"),
        ("a: !secret\n", "line 1: put text that begins with ! in quotes"),
        ("[" * 100 + "]" * 100, "line 1: nested deeper than 32 levels"),
        ("- a\n", "must hold keys and values, such as `nats:` and `accounts:`"),
        ("a: \x01\n", "no valid YAML: "),
    ],
)
def test_what_is_wrong_is_said_with_its_line(problems: Problems, text: str, problem: str) -> None:
    (found,) = problems(text)
    assert problem in found
    assert "mailbus.yaml: " in found


def test_a_billion_laughs_are_refused_at_once(problems: Problems) -> None:
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20)]
    began = time.monotonic()
    (found,) = problems("\n".join(lines))
    assert time.monotonic() - began < 1
    assert "aliases (*) that stand for more than 1000000 values" in found


def test_what_several_accounts_share_may_be_written_once(load: Load) -> None:
    both = load(
        "accounts:\n"
        "  - {id: a, address: a@example.com, password: x, preset: gmail, incoming: &in {poll: 5m}}\n"
        "  - {id: b, address: b@example.com, password: x, preset: fastmail, incoming: *in}\n"
    ).accounts
    found = [one.incoming for one in both]
    assert [one and one.poll.total_seconds() for one in found] == [300, 300]
    assert [one and one.imap and one.imap.host for one in found] == ["imap.gmail.com", "imap.fastmail.com"]


def test_a_deep_file_is_refused_without_recursion(problems: Problems) -> None:
    (found,) = problems("[" * 1_000_000)
    assert "nested deeper" in found


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.yaml"
    with open(file, "wb") as big:
        big.truncate(11 * 1024 * 1024)
    with pytest.raises(SettingsInvalid, match="larger than 10MiB"):
        load_settings(file)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="No such file"):
        load_settings(tmp_path / "nowhere.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        load_settings(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mailbus.yaml"
    file.write_bytes(b"nats: {prefix: \xff}")
    with pytest.raises(SettingsInvalid, match="not UTF-8 at byte 15"):
        load_settings(file)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    file = tmp_path / "mailbus.yaml"
    file.write_bytes(b"\xef\xbb\xbfinstance: a\n")
    assert load_settings(file).instance == "a"


def test_ten_thousand_accounts_load(load: Load) -> None:
    lines = [f"  - {{id: a{n}, address: a{n}@example.com, password: p, preset: gmail}}\n" for n in range(10_000)]
    assert len(load("accounts:\n" + "".join(lines)).accounts) == 10_000
