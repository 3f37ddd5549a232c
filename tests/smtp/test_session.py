"""Transactions against a scripted relay: replies per recipient, losses before and after the dot, reuse."""

import asyncio
from collections.abc import Mapping

import pytest

from service.clock import SystemClock
from service.contract import Security
from service.errors import MailbusError, Permanent, Transient
from service.smtp import DotUnanswered, Extras, Relay, RelayUnreachable, Reply, SmtpOptions, Timeouts
from tests.servers.smtp import RelayMaker, ScriptedRelay, Sink
from tests.servers.smtp_steps import StepRelayMaker
from tests.smtp.harness import MESSAGE, Dot, deliver, relay_to

RAW = Extras(raw=True)
UTF8_HEADER = "To: jürgen@x\r\n\r\nx\r\n".encode()


@pytest.mark.parametrize("pipelining", [True, False])
async def test_each_recipient_gets_its_reply(relay: ScriptedRelay, pipelining: bool) -> None:
    relay.script.pipelining = pipelining
    relay.script.rcpt = {"b@x": ["451 4.3.0 later"], "c@x": ["550 5.1.1 no"]}
    dot = Dot()
    replies = await relay_to(relay).deliver("me@x", ["a@x", "b@x", "c@x"], MESSAGE, before_final_dot=dot)
    assert replies == {
        "a@x": Reply(250, "2.0.0", "queued"),
        "b@x": Reply(451, "4.3.0", "later", of_recipient=True),
        "c@x": Reply(550, "5.1.1", "no", of_recipient=True),
    }
    assert [set(refused) for refused in dot.calls] == [{"b@x", "c@x"}]
    assert [(mail.rcpt_to, mail.content) for mail in relay.messages] == [(["a@x"], MESSAGE)]


@pytest.mark.parametrize("pipelining", [True, False])
async def test_where_nobody_is_accepted_no_data_goes_and_the_connection_serves_on(
    relay: ScriptedRelay, pipelining: bool
) -> None:
    relay.script.pipelining = pipelining
    relay.script.rcpt = {"b@x": ["550 no"]}
    client, dot = relay_to(relay), Dot()
    assert (await client.deliver("me@x", ["b@x"], MESSAGE, before_final_dot=dot))["b@x"].code == 550
    assert not dot.calls
    assert (await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=dot))["a@x"].accepted
    assert relay.connections == 1
    assert relay.commands == ["RSET"]
    await client.close()


@pytest.mark.parametrize("pipelining", [True, False])
async def test_a_refused_sender_is_every_recipients_reply(relay: ScriptedRelay, pipelining: bool) -> None:
    relay.script.pipelining = pipelining
    relay.script.mail = "550 5.7.1 not you"
    replies = await deliver(relay, "a@x", "b@x")
    assert {address: reply.code for address, reply in replies.items()} == {"a@x": 550, "b@x": 550}


async def test_the_answer_to_the_dot_settles_all_accepted(relay: ScriptedRelay) -> None:
    relay.script.data = ["552 5.3.4 too big"]
    relay.script.rcpt = {"b@x": ["451 later"]}
    replies = await deliver(relay, "a@x", "b@x")
    assert {address: reply.code for address, reply in replies.items()} == {"a@x": 552, "b@x": 451}


@pytest.mark.fault("E06")
async def test_421_in_the_envelope_puts_off_everybody(relay: ScriptedRelay) -> None:
    relay.script.rcpt = {"b@x": ["421 4.3.2 closing"]}
    replies = await deliver(relay, "a@x", "b@x", "c@x")
    assert {reply.code for reply in replies.values()} == {421}
    assert not relay.messages


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
async def test_lost_before_the_dot_is_transient(relay: ScriptedRelay, stage: str) -> None:
    relay.script.cut = [stage]
    with pytest.raises(Transient):
        await deliver(relay)
    assert not relay.messages


@pytest.mark.fault("E01")
@pytest.mark.parametrize("stage", ["before_reply", "refused_reply"])
async def test_lost_after_the_dot_is_uncertain_whatever_the_relay_did(relay: ScriptedRelay, stage: str) -> None:
    relay.script.cut = [stage]
    relay.script.rcpt = {"b@x": ["550 no"]}
    with pytest.raises(DotUnanswered) as caught:
        await deliver(relay, "a@x", "b@x")
    assert {address: reply.code for address, reply in caught.value.settled.items()} == {"b@x": 550}


async def test_no_reply_to_the_dot_in_time_is_uncertain(relay: ScriptedRelay) -> None:
    relay.script.hold = asyncio.Event()
    with pytest.raises(DotUnanswered):
        await deliver(relay, timeouts=Timeouts(final_s=0.2))
    relay.script.hold.set()


@pytest.mark.fault("E03")
def test_the_time_for_the_final_reply_is_ten_minutes() -> None:
    assert Timeouts().final_s == 600  # RFC 5321 4.5.3.2.6


async def test_the_dot_waits_for_the_intent_and_its_failure_leaves_no_message(relay: ScriptedRelay) -> None:
    class RefusedError(MailbusError):
        pass

    async def refuse(refused: Mapping[str, Reply]) -> None:
        await asyncio.sleep(0)
        raise RefusedError("no")

    client = relay_to(relay)
    with pytest.raises(RefusedError):
        await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=refuse)
    assert (await client.deliver("me@x", ["a@x"], b"second\r\n", before_final_dot=Dot()))["a@x"].accepted
    assert [mail.content for mail in relay.messages] == [b"second\r\n"]
    await client.close()


@pytest.mark.fault("E01")
async def test_what_runs_before_the_dot_comes_to_its_end_though_the_body_is_cut(relay: ScriptedRelay) -> None:
    relay.script.cut = ["body"]
    ended = False

    async def wait(refused: Mapping[str, Reply]) -> None:
        nonlocal ended
        while relay._open:  # noqa: ASYNC110 a connection that is cut rings no bell
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)  # until it is heard of
        ended = True

    client = relay_to(relay)
    with pytest.raises(Transient):
        await client.deliver("me@x", ["a@x"], MESSAGE * 500_000, before_final_dot=wait)
    assert ended
    await client.close()


async def test_cancelled_in_the_middle_the_connection_is_not_used_again(relay: ScriptedRelay) -> None:
    waits = asyncio.Event()

    async def wait(refused: Mapping[str, Reply]) -> None:
        waits.set()
        await asyncio.Event().wait()

    client = relay_to(relay)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=wait))
        await waits.wait()
        task.cancel()
    assert not relay.messages
    assert (await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot()))["a@x"].accepted
    assert relay.connections == 2
    await client.close()


async def test_cancelled_anywhere_no_connection_stays_out_of_step(relay: ScriptedRelay) -> None:
    """Cancelled after every number of turns of the loop, during connect, envelope, body, dot; then used again."""
    client, dot = relay_to(relay), Dot()
    for turns in range(120):
        first, second = b"first %d\r\n" % turns, b"second %d\r\n" % turns
        task = asyncio.create_task(client.deliver("me@x", ["a@x"], first, before_final_dot=dot))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert (await client.deliver("me@x", ["a@x"], second, before_final_dot=dot))["a@x"].accepted
        assert relay.messages[-1].content == second
        if not task.cancelled():
            break
    else:
        raise AssertionError("no delivery came to its end: more turns are needed")
    contents = [mail.content for mail in relay.messages]
    assert len(set(contents)) == len(contents)
    await client.close()


@pytest.mark.fault("E09")
async def test_an_idle_connection_that_the_relay_ended_costs_nothing(relay: ScriptedRelay) -> None:
    client = relay_to(relay)
    await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot())
    relay.script.cut = ["mail"]
    assert (await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot()))["a@x"].accepted
    assert relay.connections == 2
    assert len(relay.messages) == 2
    await client.close()


@pytest.mark.fault("E06")
async def test_an_idle_connection_that_the_relay_ends_with_421_costs_nothing(relay: ScriptedRelay) -> None:
    client = relay_to(relay)
    await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot())
    relay.script.rcpt = {"b@x": ["421 4.4.2 idle for too long", "250 OK"]}
    assert (await client.deliver("me@x", ["b@x"], MESSAGE, before_final_dot=Dot()))["b@x"].accepted
    assert (relay.connections, len(relay.messages)) == (2, 2)
    await client.close()


@pytest.mark.fault("E11")
async def test_dots_and_large_bodies_arrive_as_they_are(relay: ScriptedRelay) -> None:
    data = b"Subject: x\r\n\r\n" + b".\r\n..\r\n.x\r\n\r\n" * 50_000
    await deliver(relay, data=data)
    (mail,) = relay.messages
    assert mail.content == data


@pytest.mark.fault("E11")
async def test_another_server_counts_as_many_messages_as_were_sent(sink: Sink) -> None:
    """Postfix's smtp-sink, which knows nothing of us."""
    client = Relay(SmtpOptions("a", "127.0.0.1", sink.port, Security.NONE, login=False), SystemClock())
    whole = [b"x\r\n.\r\n", b".\r\n", b"..\r\n.\r\n", b"a\r\n.b\r\n", b"\r\n.\r\n\r\n", b".", b"x\r\n." * 30_000]
    bare = [b"x\n.\n", b"\r.\r", b"x\n.\r\nMAIL FROM:<e@x>\r\n", b"x\r\n.\nDATA\r\n", b"y\r", b"y\n"]
    for data in whole:
        assert (await client.deliver("me@x", ["a@x"], data, before_final_dot=Dot()))["a@x"].accepted
    for data in bare:
        assert (await client.deliver("me@x", ["a@x"], data, before_final_dot=Dot()))["a@x"].refused
    await client.close()
    assert await sink.messages(len(whole)) == len(whole)


async def test_bare_line_ends_are_refused_before_anything_is_sent(relay: ScriptedRelay) -> None:
    replies = await deliver(relay, data=b"x\n.\nMAIL FROM:<e@x>\r\n")
    assert replies["a@x"].refused
    assert relay.data_commands == 0


@pytest.mark.fault("E10")
async def test_what_the_relay_cannot_take_is_refused_here(make_relay: RelayMaker) -> None:
    small = await make_relay(size=10, smtputf8=False)
    assert (await deliver(small))["a@x"].enhanced == "5.3.4"
    plain = await make_relay(smtputf8=False)
    plain.script.eight_bit = False
    assert (await deliver(plain, data="\r\nü\r\n".encode()))["a@x"].enhanced == "5.6.3"
    assert (await deliver(plain, "jürgen@x"))["jürgen@x"].enhanced == "5.6.7"
    plain.script.eight_bit = True
    assert (await deliver(plain, data=UTF8_HEADER))["a@x"].enhanced == "5.6.9"
    assert small.data_commands == plain.data_commands == 0
    # Raw bytes are what somebody wants to say.
    assert (await deliver(plain, data=UTF8_HEADER, extras=RAW))["a@x"].accepted
    assert plain.messages[0].options[-1] == "BODY=8BITMIME"
    assert (await deliver(plain, "jürgen@x", data=UTF8_HEADER, extras=RAW))["jürgen@x"].enhanced == "5.6.7"
    plain.script.eight_bit = False
    assert (await deliver(plain, data=UTF8_HEADER, extras=RAW))["a@x"].enhanced == "5.6.3"


@pytest.mark.fault("E10")
async def test_an_address_that_the_relay_cannot_be_told_fails_nobody_else(make_relay: RelayMaker) -> None:
    """RFC 6531 3.4. It comes in the next transaction, alone."""
    plain = await make_relay(smtputf8=False)
    replies = await deliver(plain, "a@x", "jürgen@x", "b@x")
    assert replies["a@x"].accepted
    assert replies["b@x"].accepted
    assert replies["jürgen@x"].overfull
    assert [mail.rcpt_to for mail in plain.messages] == [["a@x", "b@x"]]


@pytest.mark.fault("E10")
async def test_parameters_say_what_the_message_needs(relay: ScriptedRelay) -> None:
    await deliver(relay, data="\r\nü\r\n".encode())
    await deliver(relay, "jürgen@x", data=b"x\r\n")
    assert relay.messages[0].options == ["SIZE=6", "BODY=8BITMIME"]
    assert relay.messages[1].options == ["SIZE=3", "SMTPUTF8"]
    assert relay.messages[1].rcpt_to == ["jürgen@x"]
    await deliver(relay, data=UTF8_HEADER)
    assert relay.messages[2].options == [f"SIZE={len(UTF8_HEADER)}", "BODY=8BITMIME", "SMTPUTF8"]


@pytest.mark.fault("E10")
@pytest.mark.parametrize(
    ("header", "wanted"),
    [("Subject: Grüße\r\nTo: a@x", False), ("X-To: ü\r\nTo:\r\n a@x", False), ("tO :\r\n jürgen@x", True),
     ("Resent-From: jürgen@x", True)],
)  # fmt: skip
async def test_raw_bytes_want_smtputf8_for_addresses_alone(relay: ScriptedRelay, header: str, wanted: bool) -> None:
    await deliver(relay, data=f"{header}\r\n\r\nü\r\n".encode(), extras=RAW)
    assert ("SMTPUTF8" in relay.messages[0].options) is wanted


@pytest.mark.fault("E10")
@pytest.mark.parametrize("header", [b"Subject: Gr\xfc\xdfe", b"Subject: x"])
async def test_8bit_bytes_that_are_no_utf8_header_go_as_they_are(make_relay: RelayMaker, header: bytes) -> None:
    """RFC 6532 says nothing of Latin-1 in a header, nor of UTF-8 in a body."""
    relay = await make_relay(smtputf8=False)
    await deliver(relay, data=header + "\r\n\r\nü\r\n".encode())
    assert [mail.options[-1] for mail in relay.messages] == ["BODY=8BITMIME"]


# -- what only a wire script does -----------------------------------------------------------------------------------


async def wire_server(script: Mapping[bytes, bytes], greeting: bytes = b"220 x\r\n") -> tuple[asyncio.Server, int]:
    """Answers each command line that begins with a key; `.` is the end of a message."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        while line := await reader.readline():
            for start, answer in script.items():
                if line.upper().startswith(start):
                    writer.write(answer)
                    break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, int(server.sockets[0].getsockname()[1])


GOOD = {
    b"EHLO": b"250-x\r\n250 PIPELINING\r\n", b"MAIL": b"250 OK\r\n", b"RCPT": b"250 OK\r\n",
    b"DATA": b"354 go\r\n", b".": b"250 queued\r\n", b"STARTTLS": b"220 go\r\n",
}  # fmt: skip


@pytest.mark.fault("E09")
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({b".": b"nonsense\r\n"}, DotUnanswered),
        ({b".": b"354 go\r\n"}, DotUnanswered),
        ({b"MAIL": b"250 OK\r\n250 OK\r\n250 OK\r\n250 OK\r\n250 OK\r\n"}, Transient),
        ({b"DATA": b"250 taken\r\n"}, Transient),
        ({b"RCPT": b"354 go\r\n"}, Transient),
        ({b"MAIL": b"\x00\xff\r\n"}, Transient),
        ({b"EHLO": b"250 x\r\n250 y\r\n"}, RelayUnreachable),
    ],
)
async def test_a_relay_out_of_step_is_discarded(change: dict[bytes, bytes], error: type[MailbusError]) -> None:
    server, port = await wire_server(GOOD | change)
    async with server:
        client = Relay(SmtpOptions("a", "127.0.0.1", port, Security.NONE, login=False), SystemClock())
        with pytest.raises(error):
            await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot())
        await client.close()


@pytest.mark.fault("G01")
async def test_bytes_injected_after_starttls_end_the_connection() -> None:
    """NO STARTTLS (USENIX Security 2021): what came in clear text is not read as if TLS had protected it."""
    change = {b"EHLO": b"250-x\r\n250 STARTTLS\r\n", b"STARTTLS": b"220 go\r\n250 injected\r\n"}
    server, port = await wire_server(GOOD | change)
    async with server:
        client = Relay(SmtpOptions("a", "127.0.0.1", port, Security.STARTTLS), SystemClock())
        with pytest.raises(RelayUnreachable, match="more than the reply"):
            await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot())


async def test_a_relay_that_says_nothing_is_given_up_with_what_to_look_at() -> None:
    server, port = await wire_server(GOOD, b"")
    async with server:
        limits = Timeouts(connect_s=0.3)
        settings = SmtpOptions("a", "127.0.0.1", port, Security.NONE, login=False, timeouts=limits)
        with pytest.raises(RelayUnreachable, match="check host, port and `security`"):
            await Relay(settings, SystemClock()).deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot())


@pytest.mark.parametrize("greeting", [b"554 no service\r\n", b"421 busy\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_greeting_that_is_none_is_unreachable(greeting: bytes) -> None:
    server, port = await wire_server(GOOD, greeting)
    async with server:
        client = Relay(SmtpOptions("a", "127.0.0.1", port, Security.NONE, login=False), SystemClock())
        with pytest.raises(RelayUnreachable):
            await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot())


@pytest.mark.fault("E09")
@pytest.mark.parametrize("limit", ["²".encode(), b"9" * 5_000, b"0", b"", b"many"])
async def test_a_limit_of_size_that_is_none_limits_nothing(limit: bytes) -> None:
    server, port = await wire_server(GOOD | {b"EHLO": b"250-x\r\n250-SIZE " + limit + b"\r\n250 PIPELINING\r\n"})
    async with server:
        client = Relay(SmtpOptions("a", "127.0.0.1", port, Security.NONE, login=False), SystemClock())
        assert (await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot()))["a@x"].accepted
        await client.close()


@pytest.mark.fault("E09")
async def test_words_that_are_no_utf_8_can_be_published() -> None:
    server, port = await wire_server({b"LHLO": b"550 nicht f\xfcr dich\r\n"})
    async with server:
        options = SmtpOptions("a", "127.0.0.1", port, Security.NONE, login=False, lmtp=True)
        with pytest.raises(Permanent) as caught:
            await Relay(options, SystemClock()).probe()
    assert caught.value.what == "the server speaks no LMTP: 550 nicht f?r dich"


async def test_a_connection_that_mailbus_fails_with_is_dropped(
    step_relay: StepRelayMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mail_command(*_: object) -> bytes:
        raise KeyError("a bug")

    monkeypatch.setattr("service.smtp.envelope.mail_command", mail_command)
    server = await step_relay()
    client = Relay(SmtpOptions("a", "127.0.0.1", server.port, Security.NONE, login=False), SystemClock())
    with pytest.raises(KeyError):
        await client.deliver("me@x", ["a@x"], MESSAGE, before_final_dot=Dot())
    async with asyncio.timeout(5):
        while server.connections:  # noqa: ASYNC110 a connection that ends rings no bell
            await asyncio.sleep(0.01)
