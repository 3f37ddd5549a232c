"""The table of agreement, on a corpus of two mails written for it."""

import json
from pathlib import Path

import pytest

from tests.corpora import differ
from tests.corpora.__main__ import main

BOUNCE = b"""From: MAILER-DAEMON@mx.example.org\r
To: sender@example.org\r
Subject: failure notice\r
\r
<nobody@example.net>:\r
Remote host said: 550 5.1.1 no such user\r
"""


def test_what_is_as_expected_and_what_is_not_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "flufl-bounce"
    folder.mkdir()
    (folder / "one.eml").write_bytes(BOUNCE)
    (folder / "two.eml").write_bytes(BOUNCE)
    found = {"detections": [{"temporary": False}]}
    rows = [
        {"file": "one.eml", "expect": {"recipients": ["nobody@example.net"], **found}},
        {"file": "two.eml", "expect": {"recipients": ["else@example.net"], **found}},
    ]
    (folder / "truth.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main([str(tmp_path), "--differences"]) == 0
    shown = capsys.readouterr().out
    rows_shown = [line.split()[:4] for line in shown.splitlines()]
    assert ["kind", "flufl-bounce", "100.0", "%"] in rows_shown
    assert ["recipients", "flufl-bounce", "50.0", "%"] in rows_shown
    assert "flufl-bounce/two.eml: recipients: expected ['else@example.net'], seen ['nobody@example.net']" in shown


def test_no_folder_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_mails_of_an_mbox_are_read_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sisimai-set-of-emails"
    folder.mkdir()
    line = b"From MAILER-DAEMON  Thu Jul  2 12:05:05 2020\n"
    other = BOUNCE.replace(b"5.1.1 no such user", b"5.2.2 mailbox is full")
    (folder / "two.eml").write_bytes(line + BOUNCE + b"\n" + line + other)
    deliveries = [
        {"reason": reason, "hardBounce": reason == "userunknown"} for reason in ("userunknown", "mailboxfull")
    ]
    (folder / "truth.jsonl").write_text(json.dumps({"file": "two.eml", "expect": {"deliveries": deliveries}}))
    assert main([str(tmp_path)]) == 0
    rows_shown = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["reason", "sisimai-set-of-emails", "100.0"] in rows_shown


def test_parsers_are_compared_on_mails_as_they_are_and_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bounce.eml").write_bytes(BOUNCE)
    assert differ.main([str(tmp_path), "5", "1"]) == 0
    shown = capsys.readouterr().out
    as_it_is, _, broken = shown.partition("5 of them broken")
    assert ["text", "stdlib", "1", "0", "0"] in [line.split() for line in as_it_is.splitlines()]
    assert "gave up" in broken


TWO_SUBJECTS = b"Subject: one\r\nFrom: a@example.org\r\nSubject: two\r\n\r\ncaf\xc3\xa9\r\n"
CUT_OFF = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nread\r\n--b\r\n\r\nnot closed"


def test_a_corpus_s_own_convention_is_counted_apart_and_hides_no_other_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "imap-tools"
    folder.mkdir()
    rows = []
    for number, (subject, text) in enumerate((("one", "caf"), ("three", "cup"))):
        (folder / f"{number}.eml").write_bytes(TWO_SUBJECTS)
        rows.append({"file": f"{number}.eml", "expect": {"subject": subject, "text": text, "attachments": []}})
    (folder / "truth.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main([str(tmp_path), "--differences"]) == 0
    shown = capsys.readouterr().out
    lines = [line.split()[:8] for line in shown.splitlines()]
    for name in ("subject", "text"):
        assert [name, "imap-tools", "0.0", "%", "of", "2", "50.0", "%"] in lines
    assert "0.eml: subject: expected 'one', seen 'two' [first_subject]" in shown
    assert "1.eml: subject: expected 'three', seen 'two' [no convention]" in shown


def test_what_a_source_says_it_could_not_read_is_not_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "stalwart-mail-parser"
    folder.mkdir()
    rows = []
    for number, text in enumerate(("read", "else")):
        (folder / f"{number}.eml").write_bytes(CUT_OFF)
        parts = [
            {"type": "text/plain", "encodingProblem": False, "value": text},
            {"type": "text/plain", "encodingProblem": True, "value": "not closed"},
        ]
        rows.append({"file": f"{number}.eml", "expect": {"parts": parts, "textBody": [0], "attachments": [1]}})
    (folder / "truth.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main([str(tmp_path)]) == 0
    lines = [line.split()[:8] for line in capsys.readouterr().out.splitlines()]
    assert ["text", "stalwart-mail-parser", "0.0", "%", "of", "2", "50.0", "%"] in lines
