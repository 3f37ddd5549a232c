"""Real Cyrus on loopback, IMAP and POP3, the other server with QRESYNC (Fastmail's): any user, any password.

Debian lets one IMAP server be installed: Dovecot. Cyrus's programs are unpacked beside it, into PROGRAMS; what they
share with the rest of Cyrus is a package that Dovecot does not mind.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import ImapServer, account_of, free_ports

MASTER = Path("/usr/lib/cyrus/bin/master")
UNPACKED = Path("/usr/local/lib/cyrus")
PROGRAMS = UNPACKED / "usr/lib/cyrus/bin"
MISSING = (
    "Cyrus is missing: apt-get install cyrus-common; cd /tmp && apt-get download cyrus-imapd cyrus-pop3d"
    f" && for package in cyrus-imapd_*.deb cyrus-pop3d_*.deb; do dpkg -x $package {UNPACKED}; done"
)

IMAPD = """
configdirectory: {root}/conf
partition-default: {root}/spool
defaultpartition: default
cyrus_user: {user}
allowplaintext: yes
sasl_pwcheck_method: alwaystrue
sasl_mech_list: PLAIN
autocreate_quota: 0
autocreate_inbox_folders: Sent | Trash
xlist-sent: Sent
xlist-trash: Trash
unixhierarchysep: yes
altnamespace: yes
skiplist_unsafe: yes
expunge_mode: immediate
delete_mode: immediate
munge8bit: no
duplicatesuppression: no
"""
MASTER_CONF = """
START {{
}}
SERVICES {{
  imap cmd="{programs}/imapd -C {root}/imapd.conf" listen="127.0.0.1:{imap}" prefork=2
  pop3 cmd="{programs}/pop3d -C {root}/imapd.conf" listen="127.0.0.1:{pop3}" prefork=0
}}
DAEMON {{
  idled cmd="{programs}/idled -C {root}/imapd.conf -d"
}}
"""


@dataclass
class Cyrus(ImapServer):
    """One server; its mailboxes lie under `root`."""

    root: Path
    pop3: int = 0

    def check(self) -> None:
        """Fail with the command that installs it."""
        if not (MASTER.exists() and (PROGRAMS / "imapd").exists()):
            pytest.fail(MISSING)

    def configure(self) -> None:
        """Ports, folders, the two files."""
        self.imap, self.pop3 = free_ports(2)
        user = account_of("cyrus")
        for folder in ("conf/socket", "conf/proc", "spool"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "imapd.conf").write_text(IMAPD.format(root=self.root, user=user.pw_name))
        (self.root / "master.conf").write_text(
            MASTER_CONF.format(root=self.root, programs=PROGRAMS, imap=self.imap, pop3=self.pop3)
        )
        if os.getuid() == 0:
            for found in [self.root, *self.root.rglob("*")]:
                shutil.chown(found, user.pw_name)

    def command(self) -> list[str]:
        """The parent of all its processes, in the foreground."""
        files = ["-C", f"{self.root}/imapd.conf", "-M", f"{self.root}/master.conf", "-p", f"{self.root}/pid"]
        return [str(MASTER), *files, "-D"]

    def last_words(self) -> str:
        """It says everything to syslog, and that may be nobody."""
        return "see what it said to syslog"


@pytest.fixture(scope="session")
def cyrus() -> Iterator[Cyrus]:
    """One Cyrus for the whole run: each test logs in as a user of its own."""
    # It waits for the disk at everything, and cannot be told not to: in memory, where there is such a folder.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="mailbus-cyrus-", dir=memory, ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        server = Cyrus(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def cyrus_pop3(cyrus: Cyrus) -> Cyrus:
    """The same, for those who speak POP3 with it."""
    if not (PROGRAMS / "pop3d").exists():
        pytest.fail(MISSING)
    return cyrus


@pytest.fixture(scope="session")
def server_that(request: pytest.FixtureRequest, dovecot_that: Callable[[str], Dovecot]) -> Callable[[str], ImapServer]:
    """Servers by habit: Dovecot's, and `cyrus`."""

    def that(habit: str) -> ImapServer:
        if habit == "cyrus":
            found: Cyrus = request.getfixturevalue("cyrus")
            return found
        return dovecot_that(habit)

    return that
