"""A mail's text → what its writer wrote anew: without what is quoted and without the signature. Pure, linear.

RFC 3676 4.3 and 4.5 say how a signature and a quote begin; what mail programs put before a quote are words in the
languages that they speak. What cannot be told stays: a line too many is better than one too few.
"""

import re
from itertools import takewhile
from typing import Final

# "On Tuesday, Ada wrote:" has at most so many lines and characters.
_INTRO_LINES: Final = 3
_INTRO_CHARS: Final = 400
_WROTE: Final = re.compile(
    r"\b(?:wrote|writes|schrieb|schreibt|geschrieben|a écrit|escribi[óo]|escreveu|ha scritto|schreef|skrev|kirjoitti"
    r"|napisał\(?a?\)?|napsal\(?a?\)?|написал\(?а?\)?|пишет|писал\(?а?\)?|написав|yazd[ıi])(?!\w)|写道|寫道|님이 작성",
    re.IGNORECASE,
)
_BEGINS: Final = re.compile(
    r"(?:on|at|am|le|el|il|em|op|den|d\.|w|dnia) \S|\d{1,4}\D\d|[^<]{0,200}<\S+@", re.IGNORECASE
)
# A day with its time, or an address: an introduction says when or who.
_WHEN: Final = re.compile(r"@|\d{1,2}[:.h]\d{2}|\d{1,4}[-./]\d{1,2}[-./]\d{1,4}|\d{4}年")
_EAST: Final = re.compile(r"\d{4}年\d{1,2}月\d{1,2}日.{0,200}[<@]")
# In any language: a time, and an address in brackets.
_WHO_AND_WHEN: Final = re.compile(
    r"\d{1,2}[:.]\d{2}.{0,200}[<(][^<>()\s]{1,100}@|[<(][^<>()\s]{1,100}@.{0,200}\d{1,2}[:.]\d{2}"
)
# A line that parts the old mail from the new one.
_PARTED: Final = re.compile(
    r"-{2,40} ?on .{1,200} wrote ?-{2,40}\Z"
    r"|[-_=]{2,40} ?(?:original message|original appointment|forwarded message|forwarded by .{1,200}|forwarded mail"
    r"|ursprüngliche (?:nachricht|mail)|urspr\. nachricht|original-nachricht|weitergeleitete nachricht"
    r"|message d'origine|message original|message transféré|mensaje original|mensaje reenviado|messaggio originale"
    r"|messaggio inoltrato|mensagem original|mensagem encaminhada|oorspronkelijk bericht|doorgestuurd bericht"
    r"|ursprungligt meddelande|original besked|wiadomość oryginalna|oryginalna wiadomość|původní zpráva"
    r"|исходное сообщение|пересылаемое сообщение|alkuperäinen viesti|原始邮件|邮件原件|元のメッセージ|원본 메시지)"
    r"|begin forwarded message:",
    re.IGNORECASE,
)
# The header of the old mail, as Outlook shows it: the first field, and those of which two must follow.
_FROM: Final = re.compile(
    r"\*?(?:from|von|de|da|van|från|fra|od|от|lähettäjä|kimden|发件人|寄件者|差出人|보낸 사람)\s?\*?[:：]\*?\s*\S",
    re.IGNORECASE,
)
_SUBJECTS: Final = "subject|betreff|objet|asunto|oggetto|onderwerp|ämne|emne|temat|тема|assunto|主题|件名|제목"
_FIELD: Final = re.compile(
    r"\*?(?:sent|date|to|cc|gesendet|datum|an|envoyé|à|enviado(?: el)?|fecha|para|inviato"
    r"|data|a|verzonden|aan|skickat|till|sendt|til|wysłano|do|отправлено|дата|кому"
    rf"|发送时间|收件人|日期|送信日時|宛先|보낸 날짜|받는 사람|{_SUBJECTS})\s?\*?[:：]",
    re.IGNORECASE,
)
# People write "From: Berlin, to: Paris, date: …", too; a mail's header has an address in it, or its subject.
_SUBJECT: Final = re.compile(rf"\*?(?:{_SUBJECTS})\s?\*?[:：]", re.IGNORECASE)
_OF_MAIL: Final = re.compile(rf"{_SUBJECT.pattern}|[^@]{{0,500}}@", re.IGNORECASE)
_FIELDS_WITHIN: Final = 8
# Many names over many lines may stand before the subject, but no empty line.
_SUBJECT_WITHIN: Final = 30
_RULE: Final = re.compile(r"[_-]{5,200}\s*\Z")
# What programs write below a mail of their own accord.
_PROGRAM: Final = re.compile(
    r"(?:sent (?:from|with|via) (?:my |the )?\S.{0,60}|get outlook for .{1,30}|von meinem .{2,40} gesendet"
    r"|gesendet (?:von|mit) .{2,40}|envoyé de(?:puis)? mon .{2,40}|enviado desde mi .{2,40}"
    r"|inviato da(?:l mio)? .{2,40}|verstuurd vanaf mijn .{2,40}|skickat från min .{2,40}"
    r"|отправлено (?:с|из) .{2,40}|发自我的.{2,40})\Z",
    re.IGNORECASE,
)


def newest_reply(text: str) -> str:
    """What is new in `text` (LF line ends): all of it where nothing is quoted, "" where all is."""
    lines = text.split("\n")
    kept: list[str] = []
    number, count = 0, len(lines)
    while number < count:
        line = lines[number]
        if line.startswith(">"):
            number += 1  # RFC 3676 4.5
            continue
        plain = line.strip()
        # RFC 3676 4.3: what follows is the signature; many programs lose its space.
        if plain == "--" or _PARTED.match(plain) is not None or _is_header(lines, number):
            break
        if intro := _intro(lines, number):
            if not _quoted_next(lines, number + intro):
                break
            number += intro
            continue
        kept.append(line)
        number += 1
    while kept and (not kept[-1].strip() or _RULE.match(kept[-1]) or _PROGRAM.match(kept[-1].strip())):
        kept.pop()
    # Where the words begin is looked for once: lines taken off the front one by one are moved as often.
    first = next((at for at, line in enumerate(kept) if line.strip()), len(kept))
    return "\n".join(kept[first:])


def _is_header(lines: list[str], at: int) -> bool:
    """Whether the header of an older mail begins here."""
    first = lines[at].strip()
    # GMX and web.de say when before they say who.
    second = lines[at + 1].strip() if at + 1 < len(lines) and _FIELD.match(first) is not None else ""
    if _FROM.match(first) is None and _FROM.match(second) is None:
        return False
    fields = [line for line in map(str.strip, lines[at + 1 : at + 1 + _FIELDS_WITHIN]) if _FIELD.match(line)]
    if len(fields) < 2:
        return False
    if any(_OF_MAIL.match(line) is not None for line in (first, second, *fields)):
        return True
    below = takewhile(str.strip, lines[at + 1 : at + 1 + _SUBJECT_WITHIN])
    return any(_SUBJECT.match(line.strip()) is not None for line in below)


def _intro(lines: list[str], at: int) -> int:
    """How many lines of an introduction to what is quoted stand here; 0 for none."""
    whole = ""
    for count, line in enumerate(lines[at : at + _INTRO_LINES], 1):
        plain = line.strip()
        if not plain or plain.startswith(">"):
            return 0
        whole = f"{whole} {plain}" if whole else plain
        if len(whole) > _INTRO_CHARS or (count == 2 and _BEGINS.match(whole) is None):
            return 0
        if plain[-1] in ":：" and _introduces(whole, quoted=_quoted_next(lines, at + count)):
            return count
    return 0


def _introduces(line: str, *, quoted: bool) -> bool:
    if _WROTE.search(line) is None:
        return _EAST.search(line) is not None or (quoted and _WHO_AND_WHEN.search(line) is not None)
    return quoted or _WHEN.search(line) is not None


def _quoted_next(lines: list[str], at: int) -> bool:
    """Whether the next line that is not empty is quoted."""
    for line in lines[at : at + _INTRO_LINES]:
        if line.strip():
            return line.startswith(">")
    return False
