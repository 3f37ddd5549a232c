"""What may be said when."""

import pytest

from service.pop3.state import Phase, Verb, answered, sent


def test_a_session_goes_from_greeting_to_update() -> None:
    phase = answered(Phase.GREETING, Verb.GREET, ok=True)
    for verb in (Verb.CAPA, Verb.STLS, Verb.USER, Verb.PASS, Verb.UIDL, Verb.DELE):
        phase = answered(sent(phase, verb), verb, ok=True)
    assert phase is Phase.TRANSACTION
    assert sent(phase, Verb.QUIT) is Phase.UPDATE
    assert answered(Phase.UPDATE, Verb.QUIT, ok=False) is Phase.OVER


@pytest.mark.parametrize(
    ("phase", "verb"),
    [
        (Phase.GREETING, Verb.USER),
        (Phase.AUTHORIZATION, Verb.RETR),
        (Phase.TRANSACTION, Verb.STLS),
        (Phase.TRANSACTION, Verb.PASS),
        (Phase.UPDATE, Verb.DELE),
        (Phase.UPDATE, Verb.QUIT),
        (Phase.OVER, Verb.LIST),
    ],
)
def test_what_may_not_be_said_now_is_our_own_fault(phase: Phase, verb: Verb) -> None:
    with pytest.raises(RuntimeError):
        sent(phase, verb)


def test_a_refusal_changes_nothing() -> None:
    assert answered(Phase.AUTHORIZATION, Verb.PASS, ok=False) is Phase.AUTHORIZATION
