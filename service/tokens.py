"""An account's `oauth2` → where its tokens come from: one source for all that log in alike.

Used by build/ and check.py.
"""

from dataclasses import dataclass

from service.clock import Clock
from service.contract import AccountPart
from service.errors import Permanent
from service.oauth import OAuthOptions, Tokens, is_endpoint, read_key
from service.reach import Reach
from service.secure import client_context
from service.settings import AccountSettings, IncomingSettings, OAuth2Settings, OutgoingSettings, login_remedy


@dataclass(frozen=True, slots=True)
class AccountTokens:
    """None where a direction has a password, or is not there."""

    incoming: Tokens | None = None
    outgoing: Tokens | None = None

    def parts(self) -> dict[AccountPart, Tokens]:
        """Each source once, by the account's part that keeps it."""
        if self.incoming is self.outgoing:
            return {} if self.incoming is None else {AccountPart.OAUTH2: self.incoming}
        both = {AccountPart.OAUTH2_INCOMING: self.incoming, AccountPart.OAUTH2_OUTGOING: self.outgoing}
        return {part: tokens for part, tokens in both.items() if tokens is not None}


def account_tokens(account: AccountSettings, clock: Clock, reach: Reach) -> AccountTokens:
    """The account's sources. Raises Permanent where a key or a certificate's file is none."""
    incoming = _source(account, account.incoming, clock, reach)
    wanted = account.outgoing is not None and account.outgoing.smtp.login
    outgoing = _source(account, account.outgoing, clock, reach) if wanted else None
    if incoming is not None and outgoing is not None and _alike(account.incoming, account.outgoing):
        # One token, one refresh token: two sources would each make the other's void.
        outgoing = incoming
    return AccountTokens(incoming, outgoing)


def _alike(incoming: IncomingSettings | None, outgoing: OutgoingSettings | None) -> bool:
    if incoming is None or outgoing is None:
        return False
    return incoming.oauth2 == outgoing.oauth2 and incoming.username == outgoing.username


def _source(
    account: AccountSettings, part: IncomingSettings | OutgoingSettings | None, clock: Clock, reach: Reach
) -> Tokens | None:
    if part is None or part.oauth2 is None:
        return None
    return Tokens(oauth_options(account, part.oauth2, part.username, reach), clock)


def oauth_options(account: AccountSettings, oauth2: OAuth2Settings, username: str, reach: Reach) -> OAuthOptions:
    """What a token is got with. Google's key file says what settings leave out."""
    key = read_key(oauth2.key.path, oauth2.key.content) if oauth2.key else None
    token_url = oauth2.token_url or (key.token_url if key else "")
    if not is_endpoint(token_url):
        raise Permanent(
            "nobody says where tokens are to be had", where=f"{account.id}, oauth2.token_url", remedy="write token_url"
        )
    return OAuthOptions(
        account=account.id,
        grant=oauth2.grant,
        token_url=token_url,
        tls=client_context(oauth2.ca),
        client_id=oauth2.client_id or (key.client_id if key else ""),
        client_secret=oauth2.client_secret.reveal(),
        refresh_token=oauth2.refresh_token.reveal(),
        refresh_file=oauth2.refresh_token.file,
        key=key,
        subject=username,
        scope=oauth2.scope,
        remedy=login_remedy(account.preset, oauth2.grant),
        reach=reach,
    )
