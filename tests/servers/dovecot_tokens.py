"""Real Dovecot that takes access tokens: it asks the token endpoint of the test (oauth.py) whether one is good."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.servers.dovecot import Dovecot

if TYPE_CHECKING:  # pytest registers it as a plugin after this one
    from tests.servers.oauth import OAuthServer

DOVECOT = """
auth_mechanisms = plain login {mechanisms}
passdb {{
  driver = oauth2
  mechanisms = {mechanisms}
  args = {root}/oauth2.conf
}}
"""
TOKENINFO = """
tokeninfo_url = http://127.0.0.1:{port}/tokeninfo?access_token=
username_attribute = username
active_attribute = active
active_value = true
"""


@pytest.fixture(params=["oauthbearer xoauth2", "xoauth2"])
async def dovecot_with_tokens(request: pytest.FixtureRequest, oauth: "OAuthServer") -> AsyncIterator[Dovecot]:
    """A Dovecot that asks the endpoint; with both mechanisms, and with the older one alone."""
    with tempfile.TemporaryDirectory(prefix="mailbus-dovecot-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        root = Path(folder)
        (root / "oauth2.conf").write_text(TOKENINFO.format(port=oauth.plain_port))
        server = Dovecot(root, extra=DOVECOT.format(mechanisms=request.param, root=root))
        await asyncio.to_thread(server.start)
        yield server
        await asyncio.to_thread(server.stop)
