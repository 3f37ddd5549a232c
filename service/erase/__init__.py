"""Mail, or an address, out of everything that NATS holds for mailbus; only when somebody asks.

look.py says what is meant and knows it when it sees it; found.py reads all streams and lists what would go, waiting.py
what waits outside the queue; eraser.py removes that; blobs.py takes care of what several mails share. Used by the
command line, with an operator's rights.

Nothing is announced again for it: positions are in `mail-cursors` before the event that carries one goes, and what the
events changed in the known state stays there too, as numbers and flags.
"""

from service.erase.eraser import Erasure, erase
from service.erase.found import Found, find
from service.erase.look import Wanted, wanted_address, wanted_mails

__all__ = ["Erasure", "Found", "Wanted", "erase", "find", "wanted_address", "wanted_mails"]
