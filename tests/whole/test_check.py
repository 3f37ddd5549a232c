"""`mailbus check` where several things are wrong at once: all of them are said."""

import pytest
import yaml

from service.errors import EX_CONFIG
from tests.servers.dovecot import Dovecot
from tests.servers.mailbus import Mailbus, command, imap_account, settings_for, until
from tests.servers.nats import NatsServer
from tests.servers.nats_cluster import NatsCluster
from tests.whole.test_life import Maker


async def checked(one: Mailbus) -> tuple[int, str]:
    """Its exit code, and what it says on one line."""
    one.folder.mkdir(parents=True)
    (one.folder / "mailbus.yaml").write_text(yaml.safe_dump(one.settings))
    code, out, err = await command(one, "check")
    assert err == ""
    return code, " ".join(out.split())


async def test_each_mailbox_and_role_that_is_not_there_is_named(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    account = imap_account(dovecot, prefix, mailboxes=["Nowhere", "INBOX", "\\Junk", "Gone", "\\Archive"])
    account["incoming"] |= {"after": {"move": "Attic"}}
    code, said = await checked(mailbus(settings_for(own_nats.url, prefix, account)))
    assert code == 1
    for one in ("no mailbox for \\Junk, \\Archive", "Nowhere: ", "Gone: ", "no mailbox Attic to move mail to"):
        assert one in said
    assert said.count("check its name in `mailboxes`") == 1
    assert "there are: " in said


async def test_mailboxes_that_are_named_are_all_looked_at_however_many_they_are(
    dovecot: Dovecot, own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    names = [f"Missing {n}" for n in range(25)]
    account = imap_account(dovecot, prefix, mailboxes=names)
    code, said = await checked(mailbus(settings_for(own_nats.url, prefix, account)))
    assert code == 1
    assert all(f"{name}: " in said for name in names)


@pytest.mark.fault("D18")
async def test_replicas_that_one_server_cannot_keep_are_refused_before_the_start(
    own_nats: NatsServer, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(own_nats.url, prefix))
    one.settings["nats"]["replicas"] = 3
    code, said = await checked(one)
    assert code == EX_CONFIG
    assert "nats.replicas is 3, and NATS is one server" in said
    one.start()
    await until(lambda: one.exited == EX_CONFIG)


async def test_streams_that_the_start_will_make_are_named(own_nats: NatsServer, mailbus: Maker, prefix: str) -> None:
    one = mailbus(settings_for(own_nats.url, prefix))
    code, said = await checked(one)
    assert code == 0
    assert f"to be made at the start: {prefix.upper()}_IN, " in said
    one.start()
    await one.started()
    code, out, _ = await command(one, "check")
    assert (code, "to be made" in out) == (0, False)
    assert await one.stop() == 0


@pytest.mark.fault("D18")
async def test_replicas_that_a_cluster_is_to_keep_are_no_mistake(
    nats_cluster: NatsCluster, mailbus: Maker, prefix: str
) -> None:
    one = mailbus(settings_for(nats_cluster.urls[0], prefix))
    one.settings["nats"]["replicas"] = 3
    assert (await checked(one))[0] == 0
