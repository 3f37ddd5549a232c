"""What a server says unasked → what there is to look at. Pure.

Kept by connection.py for the selected mailbox, taken by whoever looks. RFC 9051 7 (unilateral data), RFC 7162.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from service.imap.grammar import Condition, Expunged, FetchData, Response, Value, Vanished, parse_modseq, parse_number

# Beyond so many changed messages the whole mailbox is looked at: the list would cost as much.
SEQS_LIMIT: Final = 500


@dataclass(slots=True)
class Stir:
    """`gone`: something was expunged. `flags`: flags changed, of `seqs` where those still mean the same messages.

    `modseq`: the highest that the server has told; all changes up to it can be asked for.
    """

    gone: bool = False
    flags: bool = False
    seqs: set[int] = field(default_factory=set)
    modseq: int = 0
    # While flags are asked for: whether a message's number and UID are among them, and FETCH is the answer.
    asked: Callable[[int, int], bool] | None = None

    def __bool__(self) -> bool:
        return self.gone or self.flags

    def hear(self, response: Response) -> None:
        """Note what a response says."""
        match response:
            case FetchData(seq, items):
                # With a size or a body it is an answer: a survey's, a read message's.
                if "FLAGS" in items and "RFC822.SIZE" not in items and not self._is_answer(seq, items):
                    self.flags = True
                    self._changed(seq)
                    self._raise(parse_modseq(items.get("MODSEQ")))
            case Expunged() | Vanished(earlier=False):
                self.gone = True
                self.seqs.clear()
            case Condition(code="HIGHESTMODSEQ", argument=argument):
                # RFC 7162 6: it counts even where higher ones were seen.
                self.modseq = parse_number(argument.encode()) or self.modseq
            case _:
                pass

    def _is_answer(self, seq: int, items: dict[str, Value]) -> bool:
        uid = parse_number(items.get("UID"))
        return self.asked is not None and uid is not None and self.asked(seq, uid)

    def _changed(self, seq: int) -> None:
        if len(self.seqs) <= SEQS_LIMIT:
            self.seqs.add(seq)

    def _raise(self, modseq: int) -> None:
        self.modseq = max(self.modseq, modseq)

    def clear(self) -> None:
        """It is being looked at."""
        self.gone = self.flags = False
        self.seqs = set()
