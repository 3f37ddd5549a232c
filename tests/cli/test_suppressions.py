"""`mailbus suppressions`: what is added is added for accounts that there are."""

from tests.servers.mailbus import Mailbus, command, reading, settings_for, until, with_relay
from tests.servers.nats import NatsServer
from tests.servers.smtp import ScriptedRelay
from tests.whole.test_life import Maker


async def added(one: Mailbus, account: str) -> tuple[int, str]:
    code, out, err = await command(one, "suppressions", "add", account, "gone@x.example")
    return code, out + err


async def test_an_address_is_added_for_an_account_that_there_is_and_for_no_other(
    own_nats: NatsServer, mailbus: Maker, prefix: str, relay: ScriptedRelay
) -> None:
    def account(id: str) -> dict[str, object]:
        return with_relay({"id": id, "address": "me@example.com"}, relay)

    one = mailbus(settings_for(own_nats.url, prefix, account("shop")))
    one.start()
    await one.started()
    async with reading(own_nats.url, prefix) as reader:
        await reader.ask("accounts.add", account("support"))
    await until(lambda: len(one.said("accounts_taken")) > 1)
    for name in ("shop", "support"):
        assert await added(one, name) == (0, "added\n")
    code, said = await added(one, "shpo")
    assert code == 1
    assert "no such account [shpo]: there is shop and 1 more" in said
    code, said = await added(one, "billing")
    assert code == 1
    assert "no such account [billing]: there is shop, support" in said
    assert await one.stop() == 0
    # Nobody knows more than the file then.
    assert await added(one, "shop") == (0, "it is there already\n")
    code, said = await added(one, "billing")
    assert code == 0
    assert "nobody says whether there is an account billing" in said
    code, out, _ = await command(one, "suppressions", "list", "billing")
    assert (code, out.split()[0]) == (0, "gone@x.example")
