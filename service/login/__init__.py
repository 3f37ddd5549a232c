"""What IMAP, POP3 and SMTP share of logging in.

sasl.py is what is said with an access token, and by which mechanism (pure); gate.py lets one try go first, and none
for a while after a refusal. Where a token comes from is oauth/'s; no protocol knows it.
"""

from service.login.gate import LOGIN_PAUSE_S, LoginGate, with_token
from service.login.sasl import Mechanism, TokenLogin, TokenSource, mechanism_for, said_of_token, sasl_login, sasl_plain

__all__ = [
    "LOGIN_PAUSE_S",
    "LoginGate",
    "Mechanism",
    "TokenLogin",
    "TokenSource",
    "mechanism_for",
    "said_of_token",
    "sasl_login",
    "sasl_plain",
    "with_token",
]
