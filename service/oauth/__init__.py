"""An account's OAuth 2 settings → access tokens that are good for now.

wire.py says what is asked and what an answer means (pure); ask.py is the one file that speaks to a token endpoint;
key.py reads a service account's key, store.py keeps a new refresh token on disk; tokens.py has them together: one
renewal at a time, early, and the pause after a refusal.
"""

from service.oauth.key import ServiceKey, read_key
from service.oauth.options import Grant, OAuthOptions, is_endpoint
from service.oauth.tokens import Tokens

__all__ = ["Grant", "OAuthOptions", "ServiceKey", "Tokens", "is_endpoint", "read_key"]
