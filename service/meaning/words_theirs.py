"""What servers say of the other side: a mailbox, a host, a system, a line that failed. Data; words.py reads it. Pure.

One alternative a line, in lower case; what stands in braces is in words.py.
"""

from typing import Final

MAILBOX_FULL: Final = r"""
    (?:over|out of|above|exceed(?:s|ed|ing)?|reached|beyond) {the}{kind}{quota}\b
    {quota} (?:for |of )?(?:\S+ )?{is}(?:exceed|violat|full|reach|overflow|used up)
    over ?quota
    quota (?:exceeded|violation|usage)
    {box}{one} {is}(?:too )?full\b
    full {box}
    (?:not enough|insufficient|not sufficient|no|does not have enough|lack of) {kind}(?:space|storage)
    no space left
    mailbox (?:has |would )?(?:exceed|size limit|quota)
    exceeds? the maximum size allowed for mail delivery
    exceeding receiving limits
    too much mail (?:data|stored)
    too much mail\b
    user has too many messages
    disk ?space quota|disk ?quota
    bo[iî]te .{0,40}pleine
    postfach .{0,40}voll
    speicherplatz .{0,40}(?:erschöpft|überschritten)
    buz[oó]n .{0,40}llen[oa]
    casella .{0,40}piena
    skrzynka .{0,40}(?:pełna|pelna|przepe)
    ящик.{0,30}переполнен
    メールボックス.{0,20}(?:一杯|いっぱい|満杯)
"""
SYSTEM_FULL: Final = r"""
    mail system (?:is )?full
    requested mail action aborted: exceeded storage allocation
    insufficient system (?:storage|resources)
    congest
"""
SUSPENDED: Final = r"""
    {who}{one} {is}(?:suspended|disabled|deactivated|locked|frozen|terminated|archived|inactivated|closed)
    (?<!invalid or )(?:suspended|disabled|deactivated|locked|frozen|archived|expired) {who}
    (?:inactive|expired) (?:account|user|mailbox)
    {who}{one} {is}(?:expired|temporarily inactive|inactive and)
    is (?:a )?deactivated
    invalid/inactive user
    has been suspended
    is currently suspended
    currently suspended
    recipient rejected: temporarily inactive
    suspend the service
    that you tried to reach is (?:disabled|inactive)
    user or domain is disabled
    account (?:is )?not active
    due to (?:extended )?inactivity(?! new mail)
    mailbox was not used
    boite du destinataire archivee
    temporar(?:il)?y locked
    mailbox unavailable or access denied
    konto .{0,20}(?:gesperrt|zablokowane)
"""
HAS_MOVED: Final = r"""
    has been replaced by
    {who}{one} {is}moved\b
    no longer on server
    no forwarding address
    has moved to
"""
NOT_ACCEPT: Final = r"""
    null ?mx
    (?:host|domain|server)(?:/\w+)?{one} (?:does not|doesn'?t|do not) accept (?:any )?(?:mail|e-?mail)\b(?! from)
    system not accepting network messages
    mail receiving disabled
    name server: \.: host not found
    no mx record found for domain
    no route for current request
    smtp protocol returned a permanent error
    does not have any mail servers
    no mail-enabled subscriptions
"""
UNREACHED: Final = r"""
    did not accept our requests to connect
    envelope expired
    (?:server|host|computer)(?: \S+)? (?:did not|is not|not|doesn'?t|does not|was not) (?:respond|reachable)
    not reachable within
    retry time(?:out)? (?:not reached|exceeded)
    have been failing for a long time
"""
NETWORK: Final = r"""
    hop count|too many hops|routing loop|(?<!create a )mail(?:-| )?loop|(?<!aliasing/)forwarding loop
    message (?:is )?looping|exceeded \d+ hops
    host (?:is unreachable|name lookup failure|not found, try again|name lookup)
    no route to host|network (?:is )?unreachable
    dns (?:error|query failed)|dns records? for .{0,60} could not
    name server reply|unable to resolve
    unrouteable mail domain
    could not connect and send
    had no relevant answers
    establish an smtp connection
"""
LATE_NETWORK: Final = r"""
    (?:name service|name server|nameserver) (?:error|failure)
    connection (?:lost|closed)|lost connection
"""
HOST_UNKNOWN: Final = r"""
    (?:host|domain)(?: name| or domain name)?(?: \S+)? {is}(?:unknown|not (?:be )?(?:found|exist|known|valid))
    domain (?:\w+ ){0,5}is unknown
    (?:host|domain)(?: name)?(?: \S+)? {is}(?:n'?t exist|no longer exist)
    (?:unknown|no such|invalid|illegal|non-?existent) (?:mail )?(?:host|domain)
    domain (?:is not reachable|must exist)
    name or service not known
    unrout?e?able (?:address|domain)
    host unreachable
    the account or domain may not exist
    nxdomain|nonexistentdomain
    (?:cannot|can't|could not|couldn't|unable to) (?:find|locate|resolve) {the}(?:host|domain|mx|exchanger|server)
    no (?:mx|mail exchanger|a record) (?:record )?(?:found|for|exist)
    553 [\w.-]{3,100} does not exist
    bad destination (?:host|system|domain)
    lookup (?:of|for) (?:domain|host) .{0,80} failed
"""
USER_UNKNOWN: Final = r"""
    (?:unknown|no such|invalid|illegal|bad|non[- ]?existent) (?!sender)(?:(?:\w+|final delivery) ){0,2}{who}
    (?:unrecognized|undeliverable|incorrect) (?:\w+ ){0,2}{who}
    (?:not an? (?:valid|known|active)|unbekannter?|nieznany) (?:\w+ ){0,2}{who}
    {who}(?:'s email name|s)?{one},? {is}(?:not|n'?t) (?:be |been )?(?:exist|found|known|present|recogni[sz]ed)
    {who}s?{one},? {is}(?:not|n'?t) (?:be |been )?(?:listed|ok\b|local|an?\b|accepted\b(?! for))
    {who}(?:s)?{one},? {is}(?:not|n'?t) (?:be |been )?(?:available|valid|active|have)
    {who}s?{one},? {is}(?:unknown|invalid|inexist|non-?exist|incorrect|unavail?able|deleted|removed)
    {who}s?{one},? {is}(?:unbekannt|inconnu|sconosciut|desconocid)
    {who}{one},? {is}no longer (?:valid|available|exist|at)
    this address no longer
    (?:does|do|did) ?n[o']t (?:appear to )?exist
    doesn'?t exist
    doesn'?t have (?:a|an) .{0,60}account
    (?:not an active|is not an? \w+) address
    no existe|non esiste|existiert nicht|nie *istnieje|nie ma takiego|nessun utente
    no (?:mail ?box|account|user|one|person|(?:valid )?recipients?) (?:here|by that name|found|at|with|was|for)
    no mail ?box
    no valid recipients, bye|not a local address|mailbox is inactive|@\S{1,255} not found
    following recipients? (?:was|were) undeliverable|recipient address rejected\. \(in reply to rcpt
    ^5\.1\.0 address rejected|user \( ?\S+ ?\) unknown
    recipient address rejected: (?:user|invalid|unknown|access denied|undeliverable)
    address(?:es)? (?:unknown|invalid)|#5\.1\.1 bad address
    bad ?rcpt ?to|badrecipient|bad[ _-]recipient
    validrcptto
    recipient (?:not|isn'?t) (?:found|ok|accepted|local|known)|rec(?:ip)?(?:ient)?[. ]?notfound
    recipient name is not recognized
    missing home
    can'?t (?:accept|find) (?:user|recipient|mailbox)
    (?:could|can) ?n[o']t be found|couldn'?t be found
    unknown (?:user|recipient|mailbox|local[ -]?part|address|e-?mail)
    destination (?:server rejected recipients|addresses were unknown)
    not email addresses
    sorry, your envelope recipient
    there is no one at this address
    wrong or no longer valid
    not listed in
    name directory
    refuses to accept your mail
    userunknown
    no longer (?:with us|employed|works)
    (?:does not|doesn'?t) have an? (?:final |valid )?(?:e-?mail|mail)
    did not exactly match
    宛先.{0,40}(?:見つから|存在し)|ユーザ.{0,10}(?:不明|存在しません|見つかりません)|あて先.{0,30}見つから
    пользовател\w+ .{0,20}не найден|не существует
"""
FILTERED: Final = r"""
    due to (?:user rules|recipient preferences)
    only accept(?:s|ing) (?:mail|e-?mail|messages) from (?:specific|certain|known)
    is not accepting any mail
    not accepting mail from
    user (?:refuses|reject)
    (?:blocked|rejected|refused|declined) by (?:the |its )?(?:recipient|user)s?\b(?!.?s? (?:domain|server|mail))
    this account is protected by
    resolver\.rst\.notauthorized
    bounced address
    has restricted sms
    not found recipient account
    recipient id refuse
    new mail is not currently being accepted for this mailbox
    recipient (?:has )?(?:blocked|refused)
"""
SUPPRESSED: Final = r"""
    suppression list
    \bsuppressed\b
    previously bounced
    on our bounce list
"""
EXPIRED: Final = r"""
    timed? ?-?out\b(?! waiting for input)
    (?:delivery|message|queue)(?: \w+){0,2} expired
    (?:could|can)(?: not|not|n'?t) (?:be )?deliver(?:ed)? (?:your message )?(?:for|within|after|the last)
    (?:not|n'?t) (?:be |been )?delivered (?:for|within|after|in)
    in the queue too long
    giving up
    multiple retries
    allowed queue period
    not been collected after
    has been delayed
    attempts will continue
    no response
    could not find a gateway
    failed to deliver to domain
    still (?:being )?(?:queued|trying|retr)
    cannot connect to
    connection to mail exchanger failed
    not yet been delivered
    remote host is not responding
    delivery attempts
"""
SYSTEM_ERROR: Final = r"""
    (?:configuration|config|local|internal|server|system) (?:\w+ ){0,2}(?:error|problem|failure|misconfigured|busy)
    (?:temporary|processing|database|software) (?:\w+ ){0,2}(?:error|problem|failure|misconfigured|busy)
    (?:aliasing|mail)(?:/forwarding)? loop (?:broken|was)|would create a mail loop|loops back to my|loop was found
    interrupted system call
    can'?t create
    queue file
    could not load
    no mdb
    misconfigured
    it encountered an error
    timeout waiting for input
    service currently unavailable
    transaction failed
    unable to connect .{0,30}daemon
    error in processing
    ldap server
    input/output error
"""
MAILER_ERROR: Final = r"""
    procmail|mail?drop
    mailer error
    command (?:failed|died|output)
    pipe to
    x-unix
    \bexit(?:ed)? (?:status|code|with)|\|\| exit
"""
FAILED_STARTTLS: Final = r"""
    starttls (?:\w+ ){0,3}(?:required|first|failed)
    (?:requires?|must (?:use|support)) (?:tls|encryption|starttls)
    tls (?:is )?required|tls (?:negotiation|handshake|version)
    mta-sts validation|tlsa-invalid|dnssec-invalid|certificate-(?:expired|host)
    cannot start tls
"""
