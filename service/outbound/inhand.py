"""Whose request is in hand, and who asks for the same id meanwhile: answered once it is out of hand.

Used by deliver.py. Given back to the queue a repeat would come again and again, one in five seconds would be answered,
and all of them would take the room of other requests among those that NATS hands out at once.
"""

from typing import Final

from service.bus import Job
from service.outbound.sends import Sends
from service.outbound.settle import Settler

# How long until a job is looked at again that is in hand itself, or whose request others have.
AGAIN_S: Final = 5.0
# Of one request, 32 bytes each.
REPEATS_LIMIT: Final = 1_000


class InHand:
    """Requests of one account that are in hand."""

    def __init__(self, sends: Sends, settler: Settler) -> None:
        self._sends = sends
        self._settler = settler
        # By key, the messages that ask for it again.
        self._repeats: dict[str, list[int]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._repeats

    def begin(self, key: str) -> None:
        """It is in hand from now on."""
        self._repeats[key] = []

    async def again(self, key: str, job: Job, *, due: bool) -> None:
        """It was delivered again, or its id is asked for once more. `due`: by mailbus itself. Raises Transient."""
        repeats = self._repeats[key]
        if due or job.delivered > 1 or len(repeats) >= REPEATS_LIMIT:
            # Another process may have begun with it, and whoever finds out what became of that needs it.
            await job.give_back(AGAIN_S)
            return
        # Where this process ends, what is said of the request after all answers this, too.
        repeats.append(job.seq)
        await job.done()

    def end(self, key: str) -> list[int]:
        """It is not in hand any more. Gives who is to be answered."""
        return self._repeats.pop(key)

    async def answer(self, key: str, repeats: list[int]) -> None:
        """Say once more for each what is stored of it. Raises Transient."""
        record, _ = await self._sends.get(key) if repeats else (None, 0)
        if record is not None:
            for seq in repeats:
                await self._settler.say(record, asked_again=seq)
