"""`python -m tools.image`: builds the image and lets it show itself, as nobody, on a file system that nobody can write.

With docker or podman where there is one. With buildah alone (as root: no registry is asked, nothing runs as a service)
the base is made by debootstrap, and the built root is entered by chroot.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).parents[1]
TAG: Final = "mailbus"
DEBIAN: Final = "bookworm"
BASE_PACKAGES: Final = "python3,python3-venv,ca-certificates"
NOBODY: Final = "65532:65532"
# All that is writable is /tmp; what stands in the environment of whoever builds is not there.
INSIDE: Final = """
set -e
mount --bind "$1" "$2" && mount -o remount,ro,bind "$2"
mount -t tmpfs tmpfs "$2/tmp" && mount -t proc proc "$2/proc" && mount --rbind /dev "$2/dev"
exec chroot --userspec=65532:65532 "$2" /usr/bin/env -i PATH=/opt/mailbus/bin:/usr/bin:/bin mailbus demo --once
"""


def run(*command: str, env: dict[str, str] | None = None) -> str:
    """A command to its end; what it printed. Raises CalledProcessError."""
    print("$", *command, file=sys.stderr)
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | (env or {}), check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip()


def with_engine(engine: str, base: str | None) -> None:
    """docker and podman speak alike."""
    arguments = ["--build-arg", f"BASE={base}"] if base else []
    run(engine, "build", "--tag", TAG, *arguments, ".")
    print(run(engine, "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--user", NOBODY, TAG, "demo", "--once"))


def with_buildah(base: str | None) -> None:
    """Without an engine, as root."""
    env = {"BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}
    # Certificates of whoever builds: a package index may stand behind a proxy.
    certificates = ("--volume", "/etc/ssl/certs:/etc/ssl/certs:ro")
    named = base or debian_base(env)
    run(
        "buildah",
        "bud",
        "--format",
        "docker",
        "--build-arg",
        f"BASE={named}",
        *certificates,
        "--tag",
        TAG,
        ".",
        env=env,
    )
    container = run("buildah", "from", TAG, env=env)
    try:
        root = run("buildah", "mount", container, env=env)
        with TemporaryDirectory() as folder:
            print(run("unshare", "--mount", "sh", "-c", INSIDE, "sh", root, folder))
    finally:
        run("buildah", "rm", container, env=env)


def debian_base(env: dict[str, str]) -> str:
    """A small Debian with Python, as an image."""
    name = f"localhost/{TAG}-base"
    with TemporaryDirectory() as folder:
        run("debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", DEBIAN, folder)
        container = run("buildah", "from", "scratch", env=env)
        run("buildah", "add", "--quiet", container, folder, "/", env=env)
        run("buildah", "commit", "--quiet", container, name, env=env)
        run("buildah", "rm", container, env=env)
    return name


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.image", description=__doc__)
    parser.add_argument("--base", metavar="IMAGE", help="another base than the Dockerfile's")
    words = parser.parse_args()
    found = next((name for name in ("docker", "podman", "buildah") if works(name)), None)
    if found is None:
        print("no docker, podman or buildah works here: apt-get install buildah debootstrap", file=sys.stderr)
        return 1
    try:
        if found == "buildah":
            with_buildah(words.base)
        else:
            with_engine(found, words.base)
    except subprocess.CalledProcessError as exc:
        print(f"{exc.cmd[0]} ended with {exc.returncode}", file=sys.stderr)
        return 1
    return 0


def works(program: str) -> bool:
    """Whether it is there, with the service behind it where it has one."""
    return (
        shutil.which(program) is not None
        and not subprocess.run([program, "info"], capture_output=True, check=False).returncode
    )


if __name__ == "__main__":
    sys.exit(main())
