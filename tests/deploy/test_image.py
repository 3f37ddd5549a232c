"""The Dockerfile, as far as it can be read without a builder; `make image` builds it and lets it show itself."""

import fnmatch
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from service import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
COPIED = [name for line in re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    linted = subprocess.run(
        [Path(sys.executable).parent / "hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (linted.returncode, linted.stdout) == (0, "")


@pytest.mark.parametrize("name", COPIED)
def test_what_is_copied_is_there_and_is_sent_to_the_builder(name: str) -> None:
    assert (ROOT / name).exists()
    sent = False
    for pattern in IGNORED:
        if fnmatch.fnmatch(name, pattern.removeprefix("!")):
            sent = pattern.startswith("!")
    assert sent


def test_secrets_and_settings_that_lie_about_are_not_sent_to_the_builder() -> None:
    assert IGNORED[0] == "*"


def test_the_image_says_which_version_it_is() -> None:
    assert f'org.opencontainers.image.version="{__version__}"' in DOCKERFILE


def test_it_runs_as_nobody_and_asks_for_no_shell() -> None:
    assert "\nUSER 65532:65532\n" in DOCKERFILE
    assert '\nENTRYPOINT ["mailbus"]\n' in DOCKERFILE


def test_everything_that_the_installed_program_can_use_is_in_its_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    wanted += project["optional-dependencies"]["discover"]
    names = {re.split(r"[\[><=~!; ]", one)[0].lower() for one in wanted}
    locked = re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements-run.lock").read_text(encoding="utf-8"), re.MULTILINE)
    assert names <= set(locked)


def test_compose_mounts_what_is_there() -> None:
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    mounts = [mount for one in compose["services"].values() for mount in one["volumes"]]
    sources = [mount.split(":")[0] for mount in mounts]
    assert sources
    for source in sources:
        assert source in compose["volumes"] or (ROOT / "deploy" / source).exists()
