"""A catalog beside which nothing else is there."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from service.bus import KeyValue
from service.catalog import Catalog
from service.clock import SystemClock
from service.fleet import AccountReports, Presence, Roster
from service.settings import AccountSettings, Settings


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    presence = cast(Presence, SimpleNamespace(instance="one", say=lambda **_: None))
    bucket = cast(KeyValue, SimpleNamespace())
    roster = Roster[AccountSettings](bucket, presence, SystemClock())
    reports = cast(AccountReports, SimpleNamespace(say=lambda *_: None))
    return Catalog(bucket, Settings(), tmp_path, roster, reports, SystemClock())
