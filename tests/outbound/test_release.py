"""A release that comes at the wrong moment: it says so, and does nothing by halves."""

import msgspec
import pytest

from service.bus import Bus
from service.contract import request_key
from service.errors import Transient
from service.outbound import Phase
from tests.outbound.conftest import Post, idle_sender, sending
from tests.outbound.test_waiting import until_held
from tests.servers.smtp import ScriptedRelay


async def test_a_release_while_others_of_the_request_are_under_way_says_so_and_is_done_when_it_comes_again(
    bus: Bus, post: Post, relay: ScriptedRelay
) -> None:
    relay.script.cut = ["before_reply"]
    key, waiting = request_key("a", "r"), idle_sender(bus).waiting
    async with sending(bus, relay, uncertain="hold"):
        await post.request("r")
        await until_held(post, waiting)
        record, revision = await waiting._sends.get(key)
        assert record is not None
        # As where somebody else of it was put off and is tried now.
        trying = msgspec.structs.replace(
            record, phase=Phase.INTENT, pending={"b@x.example": "451"}, trying=["b@x.example"]
        )
        revision = await waiting._sends.put(key, trying, revision)
        with pytest.raises(Transient, match="others are under way") as refused:
            await waiting.release("r")
        assert "ask again" in refused.value.remedy
        await waiting._sends.put(key, record, revision)
        said = await waiting.release("r")
        assert said is not None
        assert said.undo_status == "pending"
        assert await post.states(2) == [("r", "uncertain"), ("r", "sent")]
