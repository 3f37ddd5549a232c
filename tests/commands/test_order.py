"""What subjects are sorted by, where the server does not sort (RFC 5256 section 2.1)."""

import pytest

from service.commands.order import base_subject


@pytest.mark.parametrize(
    ("subject", "base"),
    [
        ("Bill", "bill"),
        (" Re: FW [x]:\tfwd:  the   Bill (fwd) (FWD)", "the bill"),
        ("[list] Re: [list] bill", "bill"),
        ("Re: (fwd)", "re:"),  # never nothing, but for what was put behind it
        ("(fwd)", ""),
        ("[list]", "[list]"),
        ("re bill", "re bill"),
        ("re[2]: bill(fwd)", "bill"),
        ("", ""),
    ],
)
def test_what_replies_and_forwards_put_about_a_subject_counts_for_nothing(subject: str, base: str) -> None:
    assert base_subject(subject) == base


@pytest.mark.parametrize("piece", ["(fwd)", "(FWD) ", "re:", "Re: ", "[a]", "re [a] :", "[", "re[", "(fwd"])
def test_a_subject_of_nothing_else_is_gone_through_once(piece: str) -> None:
    # Gone through once for each of them, this would take hours.
    assert len(base_subject(piece * 400_000)) <= len(piece) * 400_000
