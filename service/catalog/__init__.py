"""All accounts of the fleet: those of the settings file, and those that were added over the bus.

seal.py hides secrets; entries.py is an account as the bucket `mail-accounts` has it; catalog.py puts both kinds
together and tells the fleet; admin.py answers on `mail.admin.accounts.<verb>`. Used by app.py.
"""

from service.catalog.admin import serve_admin
from service.catalog.catalog import Catalog
from service.catalog.seal import Sealer

__all__ = ["Catalog", "Sealer", "serve_admin"]
