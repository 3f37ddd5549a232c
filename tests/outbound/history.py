"""What was said of requests, against what their relay took and refused: each recipient has one end, and no mail came
twice in silence."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email import message_from_bytes

from tests.outbound.conftest import FINAL, Event
from tests.servers.smtp_steps import StepRelay


@dataclass(frozen=True)
class Asked:
    """Requests of one account: recipients by id, and the relay that they went to."""

    account: str
    relay: StepRelay
    recipients: Mapping[str, Sequence[str]]
    hold: bool = False


class History:
    """Reads events as they come."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self.asked = {one.account: one for one in asked}
        self.open = {(one.account, id, who) for one in asked for id, whose in one.recipients.items() for who in whose}
        self._read = 0
        self._events: dict[tuple[str, str], dict[str, Event]] = defaultdict(dict)
        self._said: Counter[tuple[str, str, str, str]] = Counter()
        self._expired: set[tuple[str, str, str]] = set()
        self._wrong: list[str] = []

    def ended(self, events: Sequence[Event]) -> bool:
        """Whether each recipient has an end by now."""
        for event in events[self._read :]:
            account = event.headers["ce-source"].rpartition("/")[2]
            known = self._events[account, event.body.id]
            if event.id in known:
                # After a crash it is published again: the same event.
                if known[event.id].body != event.body:
                    self._wrong.append(f"{account} {event.body.id}: two events with one id")
                continue
            known[event.id] = event
            for who in event.body.delivery_status:
                self._said[account, event.body.id, who, event.state] += 1
                if event.state in FINAL:
                    self.open.discard((account, event.body.id, who))
                if isinstance(event.body.problems, list) and event.body.problems[0].field == "expiresAt":
                    self._expired.add((account, event.body.id, who))
        self._read = len(events)
        return not self.open

    def problems(self) -> list[str]:
        """All that is wrong with it."""
        return [*self._wrong, *(wrong for one in self.asked.values() for wrong in self._of(one))]

    def _of(self, one: Asked) -> Iterator[str]:
        ids = {
            event.body.message_id: id
            for id in one.recipients
            for event in self._events[one.account, id].values()
            if event.body.message_id
        }
        copies: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        for who, content in one.relay.taken:
            named = message_from_bytes(content)["Message-ID"].strip("<>")
            copies[ids.get(named, named), who].append(content)
        for id, whose in one.recipients.items():
            for who in whose:
                where = f"{one.account} {id} {who}"
                sent, failed, uncertain = (
                    self._said[one.account, id, who, state] for state in ("sent", "failed", "uncertain")
                )
                got = copies.pop((id, who), [])
                if sent + failed != 1:
                    yield f"{where}: sent {sent} times and failed {failed} times"
                if sent and not got:
                    yield f"{where}: sent, and nobody has it"
                if failed and got and not uncertain:
                    yield f"{where}: failed, and it was taken"
                if failed and who not in one.relay.refused and (one.account, id, who) not in self._expired:
                    yield f"{where}: failed, and nobody refused it"
                if len(got) > 1 + (0 if one.hold else uncertain):
                    yield f"{where}: taken {len(got)} times, and uncertain {uncertain} times"
                if len(set(got)) > 1:
                    yield f"{where}: its copies differ"
        for (id, who), got in copies.items():
            yield f"{one.account}: {len(got)} mails that nobody asked for, {id} {who}"
