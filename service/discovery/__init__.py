"""A mail address → where its mail is read and sent. Asked for on the command line, never by a running mailbus.

names.py asks DNS (RFC 6186 SRV, MX), autoconfig.py reads Mozilla's format, web.py fetches it over TLS, find.py asks
everybody and puts what is sure first. What is found is shown, not used: whoever asked decides.
"""

from service.discovery.autoconfig import Server
from service.discovery.find import Finding, Ways, find

__all__ = ["Finding", "Server", "Ways", "find"]
