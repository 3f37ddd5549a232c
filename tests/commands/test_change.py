"""`flags`, `copy`, `move`, `delete`: done to these messages and to no others, on servers that can much and little."""

import asyncio
import json

import pytest

from service.bus import Bus
from tests.commands.conftest import Desk, code, desk, mail
from tests.servers.dovecot import Dovecot
from tests.servers.proxy import FaultProxy, Way


async def marked_deleted(one: Desk, uid: str, mailbox: str = "INBOX") -> None:
    """Another client marks a message, and leaves it."""

    def work() -> None:
        with one.server.client(one.user) as client:
            client.select(mailbox)
            client.uid("STORE", uid, "+FLAGS", "(\\Deleted)")
            client.unselect()

    await asyncio.to_thread(work)


# -- flags --------------------------------------------------------------------------------------------------------


async def test_keywords_are_set_and_taken_away(either: Desk) -> None:
    await either.append(mail("one"), mail("two"))
    one, two = await either.ids()
    assert await either.ask("flags", {"ids": [one], "add": ["$seen", "$Flagged", "project-x"]}) == {
        "updated": [one],
        "notFound": [],
    }
    assert await either.keywords(one) == {"$seen": True, "$flagged": True, "project-x": True}
    assert await either.keywords(two) == {}
    change = {"ids": [one, two, "nothing"], "add": ["$answered"], "remove": ["$seen", "project-x"]}
    for _ in range(2):  # the same again is the same
        answer = await either.ask("flags", change)
        assert answer == {"updated": [one, two], "notFound": ["nothing"]}
    assert await either.keywords(one) == {"$flagged": True, "$answered": True}
    assert await either.keywords(two) == {"$answered": True}


@pytest.mark.fault("G07")
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"add": ["\\Deleted"]}, "add[0]"),
        ({"add": ["ok", "a b"]}, "add[1]"),
        ({"add": ["x)\r\nA1 DELETE INBOX"]}, "add[0]"),
        ({"remove": ["{5}"]}, "remove[0]"),
        ({"remove": ["ü"]}, "remove[0]"),
        ({"add": [""]}, "add[0]"),
        ({"add": ["k"] * 101}, "add"),
        ({}, "add"),
        ({"add": ["$Seen"], "remove": ["$seen"]}, "remove"),
        ({"add": "$seen"}, "add"),
    ],
)
async def test_a_keyword_that_is_none_is_refused_before_the_server_hears_of_it(
    whole: Desk, body: dict[str, object], field: str
) -> None:
    await whole.append(mail("one"))
    (id,) = await whole.ids()
    answered, problems = await whole.refused("flags", {"ids": [id]} | body)
    assert (answered, problems[0]["field"]) == ("400", field)
    assert await whole.keywords(id) == {}


# -- copy and move ------------------------------------------------------------------------------------------------


async def test_copies_have_ids_that_work_at_once(either: Desk) -> None:
    await either.append(mail("one", id="1@x"), mail("two", id="2@x"), mail("three", id="3@x"))
    one, two, three = await either.ids()
    await either.ask("flags", {"ids": [three], "add": ["$flagged"]})
    answer = await either.ask("copy", {"ids": [three, one, "nothing"], "mailbox": "Sent"})
    assert answer["notFound"] == ["nothing"]
    assert await either.subjects_of([answer["created"][three], answer["created"][one]]) == ["three", "one"]
    assert await either.keywords(answer["created"][three]) == {"$flagged": True}
    assert await either.ids() == [one, two, three]
    assert len(await either.ids("Sent")) == 2


async def test_a_copy_that_nothing_tells_apart_has_no_id_where_the_server_does_not_say(bare: Desk) -> None:
    await bare.append(mail("one"))
    (one,) = await bare.ids()
    answer = await bare.ask("copy", {"ids": [one], "mailbox": "Sent"})
    assert answer == {"created": {one: None}, "notFound": []}
    assert len(await bare.ids("Sent")) == 1


@pytest.mark.fault("G10")
async def test_what_another_client_marked_stays_when_a_message_is_moved_or_deleted(moving: Desk) -> None:
    await moving.append(mail("theirs"), mail("move me"), mail("trash me"), mail("expunge me"))
    theirs, moves, trashed, expunged = await moving.ids()
    await marked_deleted(moving, "1")
    answer = await moving.ask("move", {"ids": [moves], "mailbox": "Sent"})
    assert await moving.subjects_of([answer["created"][moves]]) == ["move me"]
    assert await moving.ask("delete", {"ids": [trashed]}) == {"destroyed": [trashed], "notFound": []}
    assert await moving.subjects("Trash") == ["trash me"]
    gone = await moving.ask("delete", {"ids": [expunged], "permanently": True})
    assert gone == {"destroyed": [expunged], "notFound": []}
    assert await moving.ids() == [theirs]
    assert await moving.subjects() == ["theirs"]


@pytest.mark.fault("G10")
async def test_a_server_that_cannot_name_what_to_expunge_is_refused(bare: Desk) -> None:
    await bare.append(mail("theirs"), mail("mine"))
    ids = await bare.ids()
    await marked_deleted(bare, "1")
    for verb, body in [
        ("move", {"mailbox": "Sent"}),
        ("delete", {}),
        ("delete", {"permanently": True}),
    ]:
        answered, problems = await bare.refused(verb, {"ids": ids[1:]} | body)
        assert answered == "400"
        assert "UIDPLUS" in problems[0]["message"]
    assert await bare.ids() == ids
    assert await bare.ids("Sent") == []


@pytest.mark.fault("G10")
async def test_a_second_time_finds_nothing_and_does_nothing(moving: Desk) -> None:
    await moving.append(mail("one"), mail("two"), mail("three"))
    one, two, three = await moving.ids()
    for verb, id, body in [
        ("move", one, {"mailbox": "Sent"}),
        ("delete", two, {}),
        ("delete", three, {"permanently": True}),
    ]:
        await moving.ask(verb, {"ids": [id]} | body)
        again = await moving.ask(verb, {"ids": [id]} | body)
        assert again["notFound"] == [id]
        assert not again.get("created")
        assert not again.get("destroyed")
    assert [len(await moving.ids(mailbox)) for mailbox in ("INBOX", "Sent", "Trash")] == [0, 1, 1]


@pytest.mark.fault("G10")
async def test_the_same_id_of_a_command_gets_the_same_answer_and_does_it_once(whole: Desk) -> None:
    await whole.append(mail("one"), mail("two"))
    one, two = await whole.ids()
    body = {"ids": [one], "mailbox": "Sent"}
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(whole.ask("copy", body, Nats_Msg_Id="c-1")) for _ in range(5)]
    assert len({str(task.result()) for task in asked}) == 1
    assert len(await whole.ids("Sent")) == 1
    moved = await whole.ask("move", {"ids": [two], "mailbox": "Sent"}, Nats_Msg_Id="c-1")
    assert await whole.ask("move", {"ids": [two], "mailbox": "Sent"}, Nats_Msg_Id="c-1") == moved
    answered, problems = await whole.refused("move", {"ids": [one], "mailbox": "Sent"}, Nats_Msg_Id="c-1")
    assert (answered, problems[0]["field"]) == ("400", "Nats-Msg-Id")


@pytest.mark.fault("G10")
async def test_a_move_that_broke_off_after_its_copy_is_finished_without_a_second_copy(
    bus: Bus, uidplus_dovecot: Dovecot, prefix: str
) -> None:
    proxy = FaultProxy(uidplus_dovecot.host, uidplus_dovecot.imap)
    await proxy.start()

    def cut(_way: Way, chunk: bytes) -> bytes:
        if b"UID STORE" in chunk:
            proxy.cut()
        return chunk

    proxy.watch = cut
    body = {"mailbox": "Sent"}
    async with desk(bus, uidplus_dovecot, prefix, port=proxy.port) as one:
        await one.append(mail("one", id="1@x"), mail("two", id="2@x"))
        ids = await one.ids()
        assert (await one.refused("move", body | {"ids": ids}, Nats_Msg_Id="again"))[0] == "504"
        assert await one.subjects("Sent") == ["one", "two"]
        assert await one.ids() == ids
    proxy.watch = None
    async with desk(bus, uidplus_dovecot, prefix, port=proxy.port) as another:
        answer = await another.ask("move", body | {"ids": ids}, Nats_Msg_Id="again")
        assert sorted(answer["created"].values()) == sorted(await another.ids("Sent"))
        assert await another.subjects("Sent") == ["one", "two"]
        assert await another.ids() == []
    await proxy.stop()


@pytest.mark.fault("G10")
async def test_another_process_answers_an_id_as_the_first_one_did_and_does_nothing_again(
    bus: Bus, whole_dovecot: Dovecot, prefix: str
) -> None:
    async with desk(bus, whole_dovecot, prefix) as one:
        await one.append(mail("one"), mail("two"))
        first, second = await one.ids()
        wanted = [
            ("copy", {"ids": [first], "mailbox": "Sent"}),
            ("move", {"ids": [second], "mailbox": "Sent"}),
            ("delete", {"ids": [first]}),
        ]
        answers = [await one.ask(verb, body, Nats_Msg_Id="a") for verb, body in wanted]
        (there, _) = await one.ids("Sent")
        await one.ask("delete", {"ids": [there], "permanently": True})
    async with desk(bus, whole_dovecot, prefix) as another:
        assert [await another.ask(verb, body, Nats_Msg_Id="a") for verb, body in wanted] == answers
        assert len(await another.ids("Sent")) == 1
        answered, problems = await another.refused("copy", {"ids": [second], "mailbox": "Sent"}, Nats_Msg_Id="a")
        assert (answered, problems[0]["field"]) == ("400", "Nats-Msg-Id")


@pytest.mark.fault("G10")
async def test_a_copy_whose_answer_is_lost_is_found_again_with_or_without_a_message_id(
    bus: Bus, whole_dovecot: Dovecot, prefix: str
) -> None:
    proxy = FaultProxy(whole_dovecot.host, whole_dovecot.imap)
    await proxy.start()

    def cut(_way: Way, chunk: bytes) -> bytes:
        if b"[COPYUID " in chunk:
            proxy.cut()
        return chunk

    body = {"mailbox": "Sent"}
    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
        await one.append(mail("one", id="1@x"), mail("two"), mail("ten"))
        ids = await one.ids()
        proxy.watch = cut
        assert (await one.refused("copy", body | {"ids": ids}, Nats_Msg_Id="c"))[0] == "504"
        assert (await one.refused("copy", body | {"ids": ids[:1]}, Nats_Msg_Id="d"))[0] == "504"
        proxy.watch = None
        copies = await one.ids("Sent")
        assert len(copies) == 4
        # Gone from there by now: whether it was the copy, nothing tells.
        await one.ask("delete", {"ids": copies[3:], "permanently": True})
    await proxy.stop()
    async with desk(bus, whole_dovecot, prefix) as another:
        await another.append(mail("else", id="2@x"), mailbox="Sent")
        answer = await another.ask("copy", body | {"ids": ids}, Nats_Msg_Id="c")
        assert sorted(answer["created"].values()) == sorted(copies[:3])
        answered, problems = await another.refused("copy", body | {"ids": ids[:1]}, Nats_Msg_Id="d")
        assert (answered, problems[0]["field"]) == ("409", "Nats-Msg-Id")
        assert len(await another.ids("Sent")) == 4


@pytest.mark.fault("G10")
async def test_a_copy_that_was_refused_is_made_once_it_is_asked_for_again(
    bus: Bus, whole_dovecot: Dovecot, prefix: str
) -> None:
    proxy = FaultProxy(whole_dovecot.host, whole_dovecot.imap)
    await proxy.start()

    def cut(_way: Way, chunk: bytes) -> bytes:
        if b"UID COPY" in chunk:
            proxy.cut()
            return b""
        return chunk

    proxy.watch = cut
    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
        await one.append(mail("one"))
        body = {"ids": await one.ids(), "mailbox": "Sent"}
        assert (await one.refused("copy", body, Nats_Msg_Id="c"))[0] == "504"
        proxy.watch = None
        assert list((await one.ask("copy", body, Nats_Msg_Id="c"))["created"].values()) == await one.ids("Sent")
    await proxy.stop()


@pytest.mark.fault("G10")
async def test_a_mail_that_a_stranger_put_where_another_goes_to_is_never_taken_for_its_copy(uidplus: Desk) -> None:
    await uidplus.append(mail("ours", id="1@x"))
    await uidplus.append(mail("evil", id="1@x"), mailbox="Sent")  # as many octets
    ids = await uidplus.ids()
    await uidplus.ask("copy", {"ids": ids, "mailbox": "Sent"}, Nats_Msg_Id="c")
    assert await uidplus.subjects("Sent") == ["evil", "ours"]
    await uidplus.ask("move", {"ids": ids, "mailbox": "Sent"}, Nats_Msg_Id="m")
    assert await uidplus.subjects("Sent") == ["evil", "ours", "ours"]
    assert await uidplus.ids() == []


async def test_what_a_server_says_wrongly_of_what_it_did_is_done_all_the_same(
    bus: Bus, whole_dovecot: Dovecot, prefix: str
) -> None:
    proxy = FaultProxy(whole_dovecot.host, whole_dovecot.imap)
    await proxy.start()
    proxy.watch = lambda _way, chunk: chunk.replace(b"[APPENDUID ", b"[APPENDUID x").replace(
        b"[COPYUID ", b"[COPYUID x"
    )
    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
        await one.append(mail("one", id="1@x"), mail("two", id="2@x"))
        first, second = await one.ids()
        copied = await one.ask("copy", {"ids": [first], "mailbox": "Sent"})
        assert [copied["created"][first]] == await one.ids("Sent")
        moved = await one.ask("move", {"ids": [second], "mailbox": "Sent"})
        # The original is gone, and nothing tells for certain which one it was.
        assert moved == {"created": {second: None}, "notFound": []}
        assert await one.subjects("Sent") == ["one", "two"]
        kept = await one.ask("append", {"mailbox": "Trash", "request": {"id": "d", "subject": "draft", "text": "x"}})
        assert [kept["id"]] == await one.ids("Trash")
    await proxy.stop()


async def test_what_lies_there_already_stays(whole: Desk) -> None:
    await whole.append(mail("one"), mailbox="Trash")
    (id,) = await whole.ids("Trash")
    assert await whole.ask("delete", {"ids": [id]}) == {"destroyed": [id], "notFound": []}
    assert await whole.ask("move", {"ids": [id], "mailbox": "Trash"}) == {"created": {id: id}, "notFound": []}
    assert await whole.ids("Trash") == [id]


async def test_a_mailbox_that_is_not_there_is_404_and_nothing_is_done(whole: Desk) -> None:
    await whole.append(mail("one"))
    ids = await whole.ids()
    for verb in ("copy", "move"):
        assert (await whole.refused(verb, {"ids": ids, "mailbox": "nowhere"}))[0] == "404"
    assert await whole.ids() == ids


async def test_messages_of_several_mailboxes_go_together(whole: Desk) -> None:
    await whole.append(mail("one"))
    await whole.append(mail("two"), mailbox="Sent")
    (one,), (two,) = await whole.ids(), await whole.ids("Sent")
    answer = await whole.ask("delete", {"ids": [two, one]})
    assert sorted(answer["destroyed"]) == sorted([one, two])
    assert await whole.subjects("Trash") == ["two", "one"]


@pytest.mark.fault("A18")
async def test_a_mailbox_that_was_made_a_moment_ago_is_found(whole: Desk) -> None:
    await whole.append(mail("one"))
    (id,) = await whole.ids()

    def work() -> None:
        with whole.server.client(whole.user) as client:
            status, said = client.create('"&U,BTFw-/a &- b"')
            assert status == "OK", said

    await asyncio.to_thread(work)
    body = {"ids": [id], "mailbox": "台北/a & b"}
    async with asyncio.timeout(10):
        # Ids and names that lead nowhere make the server list again after two seconds, not at once.
        while code(answer := await whole.message("move", body)) == "404":  # noqa: ASYNC110 no bell rings
            await asyncio.sleep(0.1)
    created = json.loads(answer.data)["created"]
    assert await whole.subjects_of(list(created.values())) == ["one"]
    listed = {one["mailbus"]["path"]: one for one in (await whole.ask("mailboxes"))["list"]}
    assert listed["台北/a & b"]["parentId"] == listed["台北"]["id"]
    assert listed["台北/a & b"]["name"] == "a & b"
    assert listed["台北/a & b"]["totalEmails"] == 1


async def test_a_copy_that_the_server_refused_is_made_although_mail_came_there_and_went(
    bus: Bus, whole_dovecot: Dovecot, prefix: str
) -> None:
    proxy = FaultProxy(whole_dovecot.host, whole_dovecot.imap)
    await proxy.start()
    proxy.watch = lambda _way, chunk: chunk.replace(b"Sent", b"Nope") if b"UID COPY" in chunk else chunk
    async with desk(bus, whole_dovecot, prefix, port=proxy.port) as one:
        await one.append(mail("one"))
        body = {"ids": await one.ids(), "mailbox": "Sent"}
        assert (await one.refused("copy", body, Nats_Msg_Id="c"))[0] == "404"
        proxy.watch = None
        await one.append(mail("other"), mailbox="Sent")
        await one.ask("delete", {"ids": await one.ids("Sent"), "permanently": True})
        created = (await one.ask("copy", body, Nats_Msg_Id="c"))["created"]
        assert list(created.values()) == await one.ids("Sent")
    await proxy.stop()
