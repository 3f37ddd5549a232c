"""Settings as an operator writes them, in a folder and an environment of the test's own."""

import os
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from service.settings import Settings, SettingsInvalid, load_settings

Load = Callable[[str], Settings]
Problems = Callable[[str], list[str]]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("MAILBUS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load settings from this YAML."""

    def loaded(text: str) -> Settings:
        file = tmp_path / "mailbus.yaml"
        file.write_text(dedent(text), encoding="utf-8")
        return load_settings(file)

    return loaded


@pytest.fixture
def problems(load: Load) -> Problems:
    """What is wrong with this YAML."""

    def found(text: str) -> list[str]:
        with pytest.raises(SettingsInvalid) as failed:
            load(text)
        return failed.value.problems

    return found
