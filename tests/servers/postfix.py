"""Real Postfix as a relay, an instance of the tests' own: its configuration, queue and mailboxes in one folder.

Who logs in is asked of Dovecot, as on many servers. Postfix's master runs for root alone.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.dovecot import Dovecot
from tests.servers.imap_server import free_ports
from tests.servers.mta import DOMAIN, Mta

DAEMONS = Path("/usr/lib/postfix/sbin")
MISSING = "Postfix is missing: apt-get install postfix"
OWNED = "active bounce corrupt defer deferred flush hold incoming private saved trace".split()

MAIN = r"""
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
command_directory = /usr/sbin
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {root}/log
maillog_file_prefixes = {root}
myhostname = postfix.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = {domain}
virtual_mailbox_base = {root}/mail
virtual_mailbox_maps = regexp:{root}/mailboxes
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtpd_tls_security_level = may
smtpd_tls_cert_file = {root}/cert.pem
smtpd_tls_key_file = {root}/key.pem
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{auth}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_peername_lookup = no
smtputf8_enable = yes
message_size_limit = 20000000
"""
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix(Mta):
    """One Postfix. `auth`: the port at which Dovecot says who may log in."""

    def __init__(self, root: Path, auth: int) -> None:
        super().__init__(root)
        self.auth = auth

    def check(self) -> None:
        if not (DAEMONS / "master").exists():
            pytest.fail(MISSING, pytrace=False)
        if os.getuid() != 0:
            pytest.fail("Postfix's master runs for root alone: run this test as root", pytrace=False)

    def configure(self) -> None:
        owner = pwd.getpwnam("postfix")
        for folder in ("queue/pid", "queue/public", "queue/maildrop", "data", "mail"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        for folder in OWNED:
            (self.root / "queue" / folder).mkdir(exist_ok=True, mode=0o700)
            shutil.chown(self.root / "queue" / folder, owner.pw_name)
        for folder in ("queue/public", "queue/maildrop"):
            shutil.chown(self.root / folder, owner.pw_name, "postdrop")
        for folder in ("data", "mail"):
            shutil.chown(self.root / folder, owner.pw_name)
        values = {
            "root": self.root, "daemons": DAEMONS, "domain": DOMAIN, "uid": owner.pw_uid, "gid": owner.pw_gid,
            "auth": self.auth, "port": self.port,
        }  # fmt: skip
        (self.root / "main.cf").write_text(MAIN.format(**values))
        (self.root / "master.cf").write_text(MASTER.format(**values))
        (self.root / "mailboxes").write_text("if !/^nobody@/\n/^(.+)@/ all/\nendif\n")

    def spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([str(DAEMONS / "master"), "-c", str(self.root), "-d"], start_new_session=True)


@pytest.fixture(scope="session")
def postfix() -> Iterator[Postfix]:
    """One Postfix for the whole run, and the Dovecot that it asks."""
    (auth,) = free_ports(1)
    with (
        tempfile.TemporaryDirectory(prefix="mailbus-postfix-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryDirectory(prefix="mailbus-sasl-", ignore_cleanup_errors=True) as beside,
    ):
        for one in (folder, beside):
            os.chmod(one, 0o755)
        asked = Dovecot(Path(beside), extra=f"service auth {{\n  inet_listener {{\n    port = {auth}\n  }}\n}}")
        server = Postfix(Path(folder), auth)
        try:
            asked.start()
            server.start()
            yield server
        finally:
            server.stop()
            asked.stop()
