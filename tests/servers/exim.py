"""Real Exim as a relay, run by nobody special from a configuration of its own.

Debian lets one MTA be installed: Postfix. Exim's program is unpacked beside it, into UNPACKED. It looks its own user up
by name when it starts, whoever runs it, so there must be one.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.imap_server import PASSWORD, account_of
from tests.servers.mta import DOMAIN, USER, Mta

OWNER = "Debian-exim"
UNPACKED = Path("/usr/local/lib/exim")
PROGRAM = UNPACKED / "usr/sbin/exim4"
MISSING = (
    "Exim is missing: cd /tmp && apt-get download exim4-daemon-light"
    f" && dpkg -x exim4-daemon-light_*.deb {UNPACKED} && useradd --system {OWNER}"
)

CONFIG = r"""
exim_path = {program}
primary_hostname = exim.test
spool_directory = {root}/spool
log_file_path = {root}/log-%s
pid_file_path = {root}/pid
daemon_smtp_ports = {port}
local_interfaces = 127.0.0.1
tls_advertise_hosts = *
tls_certificate = {root}/cert.pem
tls_privatekey = {root}/key.pem
auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}
chunking_advertise_hosts = *
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
accept_8bitmime = true
keep_environment =
never_users =
deliver_drop_privilege = true
host_lookup =
rfc1413_hosts =
smtp_accept_max = 0
message_size_limit = 20M
acl_smtp_rcpt = rcpt
acl_smtp_data = accept
queue_run_max = 0

begin acl
rcpt:
  deny ! authenticated = *
       message = log in first
  deny local_parts = nobody
       message = 5.1.1 nobody of this name
  accept domains = {domain}
  deny message = 5.7.1 not from here

begin routers
mailbox:
  driver = accept
  transport = mailbox

begin transports
mailbox:
  driver = appendfile
  directory = {root}/mail
  maildir_format
  create_directory
  envelope_to_add
  return_path_add
  delivery_date_add = false

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}
  server_set_id = $auth2
"""


class Exim(Mta):
    """One Exim; its mailbox lies under `root`."""

    def check(self) -> None:
        try:
            pwd.getpwnam(OWNER)
        except KeyError:
            pytest.fail(MISSING, pytrace=False)
        if not PROGRAM.exists():
            pytest.fail(MISSING, pytrace=False)

    def configure(self) -> None:
        for folder in ("spool", "mail"):
            (self.root / folder).mkdir(exist_ok=True)
        text = CONFIG.format(
            root=self.root, program=PROGRAM, port=self.port, domain=DOMAIN, user=USER, password=PASSWORD
        )
        (self.root / "exim.conf").write_text(text)
        if os.getuid() == 0:
            for file in (self.root, *self.root.rglob("*")):
                shutil.chown(file, OWNER, account_of(OWNER).pw_gid)

    def spawn(self) -> subprocess.Popen[bytes]:
        # A delivery for each mail at once, each a process of its own.
        command = [str(PROGRAM), "-C", str(self.root / "exim.conf"), "-bdf"]
        user = {"user": OWNER, "group": account_of(OWNER).pw_gid, "extra_groups": []} if os.getuid() == 0 else {}
        return subprocess.Popen(command, start_new_session=True, cwd="/", **user)  # type: ignore[call-overload]


@pytest.fixture(scope="session")
def exim() -> Iterator[Exim]:
    """One Exim for the whole run."""
    with tempfile.TemporaryDirectory(prefix="mailbus-exim-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        server = Exim(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()
