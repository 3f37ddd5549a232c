"""Real Dovecot on loopback: IMAP, IMAPS, POP3, POP3S, LMTP on free ports, any user with the password `secret`."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from tests.servers.imap_server import PASSWORD, ImapServer, account_of, free_ports

DOVECOT = shutil.which("dovecot") or "/usr/sbin/dovecot"
MISSING = "Dovecot is missing: apt-get install dovecot-imapd dovecot-pop3d dovecot-lmtpd"

CONFIG = """
base_dir = {root}/run
state_dir = {root}/state
log_path = {root}/dovecot.log
protocols = imap pop3 lmtp
listen = 127.0.0.1
ssl = yes
ssl_cert = <{root}/cert.pem
ssl_key = <{root}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login
mail_location = {location}
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
default_internal_user = {user}
default_login_user = {user}
default_internal_group = {group}
mail_max_userip_connections = 500
mail_fsync = never
auth_failure_delay = 0
imap_idle_notify_interval = 2 mins
lmtp_save_to_detail_mailbox = no
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={root}/home/%u allow_all_users=yes
}}
namespace inbox {{
  inbox = yes
  separator = /
}}
service anvil {{
  chroot =
  # No waiting after a wrong password: the tests try many.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service imap-login {{
  chroot =
  service_count = 0
  process_min_avail = 1
  client_limit = 2000
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service imap {{
  process_limit = 600
  service_count = 1000
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
service stats {{
  chroot =
}}
{extra}
"""


@dataclass
class Dovecot(ImapServer):
    """One server; its mailboxes lie under `root`."""

    root: Path
    location: str = "maildir:~/Maildir"
    extra: str = ""
    host: str = "127.0.0.1"
    imap: int = 0
    imaps: int = 0
    pop3: int = 0
    pop3s: int = 0
    lmtp: int = 0
    ca: Path = field(default_factory=Path)
    process: subprocess.Popen[bytes] | None = None

    def check(self) -> None:
        """Fail with the command that installs it."""
        if not os.path.exists(DOVECOT):
            pytest.fail(MISSING)

    def command(self) -> list[str]:
        """In the foreground."""
        return [DOVECOT, "-F", "-c", str(self.root / "dovecot.conf")]

    def last_words(self) -> str:
        """Its log."""
        return (self.root / "dovecot.log").read_text()[-2000:]

    def configure(self) -> None:
        """Ports, a certificate, the file."""
        self.imap, self.imaps, self.pop3, self.pop3s, self.lmtp = free_ports(5)
        user = account_of("dovecot")
        (self.root / "home").mkdir(parents=True, exist_ok=True)
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        self.ca = self.root / "ca.pem"
        authority.cert_pem.write_to_path(self.ca)
        certificate.private_key_pem.write_to_path(self.root / "key.pem")
        (self.root / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
        group = os.popen(f"id -gn {user.pw_name}").read().strip()
        text = CONFIG.format(
            root=self.root,
            location=self.location,
            user=user.pw_name,
            group=group,
            password=PASSWORD,
            imap=self.imap,
            imaps=self.imaps,
            pop3=self.pop3,
            pop3s=self.pop3s,
            lmtp=self.lmtp,
            extra=self.extra,
        )
        (self.root / "dovecot.conf").write_text(text)
        if os.getuid() == 0:
            shutil.chown(self.root / "home", user.pw_name)


# What Dovecot offers when it is told to hide what tells of changes: it is one server in three habits.
CAPABILITIES = "IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE ESEARCH UIDPLUS MOVE UNSELECT"
HABITS = {
    "qresync": "",
    "condstore": f"protocol imap {{\n  imap_capability = {CAPABILITIES} CONDSTORE\n}}",
    "snapshot": f"protocol imap {{\n  imap_capability = {CAPABILITIES}\n}}",
    # No MOVE: copies, and expunges what it copied.
    "uidplus": f"protocol imap {{\n  imap_capability = {CAPABILITIES.replace(' MOVE', '')}\n}}",
    # Unique ids over POP3 that say nothing of IMAP's UIDs.
    "guid": "protocol pop3 {\n  pop3_uidl_format = %g\n}",
    "old": "protocol imap {\n  imap_capability = IMAP4rev1\n}",
}


@pytest.fixture(scope="session")
def dovecot_that() -> Iterator[Callable[[str], Dovecot]]:
    """Servers by habit, each started once for the run."""
    with contextlib.ExitStack() as stack:
        servers: dict[str, Dovecot] = {}

        def that(habit: str) -> Dovecot:
            if habit not in servers:
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="mailbus-dovecot-", ignore_cleanup_errors=True)
                )
                os.chmod(folder, 0o755)
                servers[habit] = Dovecot(Path(folder), extra=HABITS[habit])
                servers[habit].start()
                stack.callback(servers[habit].stop)
            return servers[habit]

        yield that


@pytest.fixture(scope="session")
async def dovecot() -> AsyncIterator[Dovecot]:
    """One Dovecot for the whole run: each test logs in as a user of its own, so nothing needs cleaning."""
    # Not under pytest's folder: that is for its owner alone, and Dovecot reads mail as a user of its own.
    with tempfile.TemporaryDirectory(prefix="mailbus-dovecot-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        server = Dovecot(Path(folder))
        await asyncio.to_thread(server.start)
        yield server
        await asyncio.to_thread(server.stop)
