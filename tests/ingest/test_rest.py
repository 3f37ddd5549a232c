"""How long a mailbox without a connection goes unlooked at while its figures stand still."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from service.clock import SystemClock
from service.contract import Sync
from service.ingest.compare import Comparer


@pytest.mark.parametrize(
    ("sync", "calm_s", "rest_s"),
    [
        (Sync.SNAPSHOT, 1.0, 300.0),
        (Sync.SNAPSHOT, 1000.0, 1000.0),
        (Sync.SNAPSHOT, float("inf"), 3600.0),
        (Sync.CONDSTORE, 1.0, 6 * 3600.0),
        (Sync.QRESYNC, float("inf"), 6 * 3600.0),
    ],
)
def test_without_modseqs_as_long_as_it_has_been_calm(sync: Sync, calm_s: float, rest_s: float) -> None:
    source: Any = SimpleNamespace(sync=sync)
    none = cast("Any", None)
    assert Comparer(source, none, none, clock=SystemClock(), where="").rest_s(calm_s) == rest_s
