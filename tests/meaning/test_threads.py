"""threadId without a server that says it, and without a table (RFC 5322 3.6.4)."""

from service.meaning import thread_id
from tests.mime.mails import email_of


def thread(header: str) -> str | None:
    return thread_id(email_of(f"From: a@example.org\n{header}\n\ntext\n"))


ROOT = "Message-ID: <root@example.org>"


def test_all_of_a_conversation_have_the_id_of_what_began_it() -> None:
    first = thread(ROOT)
    reply = thread("Message-ID: <b@x>\nIn-Reply-To: <root@example.org>\nReferences: <root@example.org>")
    later = thread("Message-ID: <c@x>\nIn-Reply-To: <b@x>\nReferences: <root@example.org>\n <b@x>")
    bare = thread("Message-ID: <d@x>\nIn-Reply-To: <root@example.org>")
    assert first == reply == later == bare


def test_the_id_is_the_same_for_ever() -> None:
    # Whoever kept it must find it again: this value is part of the contract.
    assert thread(ROOT) == "t-SafZl_sC6EgWbRX77Yn3"


def test_another_conversation_has_another_id() -> None:
    assert thread("Message-ID: <other@example.org>") != thread(ROOT)


def test_an_address_in_a_phrase_is_no_root() -> None:
    # RFC 5322 4.5.4: else all that is written to one person were one conversation.
    phrase = "In-Reply-To: Message from ann@example.org of Monday"
    assert thread(f"{phrase}\nMessage-ID: <a@x>") == thread("Message-ID: <a@x>")
    assert thread("In-Reply-To: root@example.org (Ann)") == thread(ROOT)


def test_a_mail_without_any_id_has_none() -> None:
    assert thread("Subject: hello") is None
