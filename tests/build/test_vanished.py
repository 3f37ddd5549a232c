"""A mailbox that vanished: whoever has its mail under another name finds it before it has ended."""

from types import SimpleNamespace
from typing import cast

import pytest

from service.build.incoming import Mailbox
from service.ingest import Desks


@pytest.mark.fault("A18")
def test_its_position_is_looked_for_as_soon_as_it_has_vanished() -> None:
    desks, looked_for = Desks(), list[str]()
    desks.desk("Two")
    one = SimpleNamespace(_desks=desks, _name="Two", _gone=lambda: looked_for.append("Two"))
    Mailbox.vanished(cast(Mailbox, one))
    assert (looked_for, list(desks.mailboxes())) == (["Two"], [])
