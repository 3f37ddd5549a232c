"""What servers say of us: our mail, its sender, our server and its standing. Data; words.py reads it. Pure.

One alternative a line, in lower case; what stands in braces is in words.py.
"""

from typing import Final

EXCEED_LIMIT: Final = r"""
    message header size exceeds
    message too large for this recipient
    \bmessage too large\b
"""
TOO_BIG: Final = r"""
    (?:message|mail|content|file)(?: file)?{one} {is}(?:too|over) (?:big|large|the size)
    (?:message|mail|data|body|content|incoming|inbound)(?: \w+){0,2} size (?:\w+ ){0,3}(?:exceed|limit|over|too)
    size limit
    exceed(?:s|ed|ing)? (?:\w+'?s? ){0,6}(?:message|mail|email) size
    message length exceeds
    line limit exceeded
    max(?:imum)? (?:\w+ )?(?:message|mail) size
    larger than (?:\w+ ){0,4}(?:maximum|limit|size|allowed|accept)
    message file too big
    taille limite du message
    nachricht .{0,30}zu gro(?:ß|ss)
"""
NO_RELAYING: Final = r"""
    relay(?:ing)?{one} {is}(?:denied|not (?:permitted|allowed|possible|accepted)|prohibited|refused|forbidden)
    (?:unable|not allowed|not permitted|cannot|can't|refus\w+|denied|not configured) (?:to )?relay
    \bno relay(?:ing)?\b
    relaying mail to
    open relay|mail relay|as a relay
    not a gateway
    not (?:a )?local host
    (?:isn'?t|not) in my list of allowed rcpt ?hosts?
    (?:not|n'?t) (?:handle|relay) mail for
    specified domain is not allowed
    relay attempt
    credentials for relay
    not authorized to send email directly
    authentication when attempting to send to a non-local
    to relay through
"""
AUTH_FAILURE: Final = r"""
    \bdmarc\b
    \bspf\b{near}(?:fail|violat|reject|not |bad|invalid|check|settings|unauthenticated)
    (?:fail|violat|reject|not pass|bad|inspect){near}\bspf\b
    sender policy framework
    \bspf record|spf\.pobox
    (?:no|fail|invalid|not pass|missing|without){near}\bdkim\b
    \bdkim\b{near}(?:fail|invalid|missing|required|check|not )
    fails? to pass authentication checks
    authentication checks failed
    is not allowed to send mail\.{near}_401
    unauthenticated e?-?mail
"""
REQUIRE_PTR: Final = r"""
    \bptr\b
    reverse[ -]?(?:dns|lookup|mapping|name|hostname|address|ip)
    \br-?dns\b
    \bno reverse\b
    cannot (?:find your (?:reverse )?hostname|resolve your address)
    client host rejected: cannot find
    unresolvable relay host
    ip name lookup failed
    mismatches client ip
    unverifi?y?able sending ip
    forward dns entry does not point
    dns lookup failure: .{0,80}try again later
"""
NOT_COMPLIANT: Final = r"""
    (?:not|non|isn'?t|aren'?t)[ -](?:rfc[ -]?\d* ?)?complian(?:t|ce)
    rfc ?\d+ (?:section [0-9.]+ )?complian
    rfcmessagenoncompliant
    (?:duplicate|multiple|several|two|more than one) (?:[\w'-]+ ){0,3}(?:header|address(?:es)? in from)
    missing (?:a )?(?:valid |required )?(?:address in the from|message-id|header|from|date)
    must have exactly one
    message is malformed
    encoded-word syntax is not permitted
    bad[ -]header
"""
BAD_REPUTATION: Final = r"""
    (?:poor|low|bad|ip|domain|sender)(?: email| ip| /?\w+)? reputation
    reputation (?:problem|score|of)
    temporarily deferred due to (?:unexpected volume or )?user complaints
"""
VIRUS: Final = r"""
    (?<!spam or )(?<!spam/)\bvir(?:us|ii)\b(?! alias)
    malware
    infected
    trojan
    potentially executable
    phishing
"""
SPAM: Final = r"""
    (?:detected|identified|classified|considered) {the}(?:\w+ ){0,2}(?:spam|unsolicited|junk|bulk)\b
    (?:flagged|marked|recogni[sz]ed) {the}(?:\w+ ){0,2}(?:spam|unsolicited|junk|bulk)\b
    (?:rejected|scored|tagged|treated|suspected) {the}(?:\w+ ){0,2}(?:spam|unsolicited|junk|bulk)\b
    (?:blocked|refused|denied|reject|block) {the}(?:\w+ )?(?:spam|unsolicited|junk)\b
    (?:appears|looks?|looked|seems) {the}(?:like )?(?:\w+ )?(?:spam|unsolicited|junk)\b
    (?:likely|possible|possibly|probable|probably) {the}(?:\w+ )?(?:spam|unsolicited|junk)\b
    (?:no|too much|contains?|about|consider(?:ed)?|accept|for) (?:\w+ )?spam\b
    (?:mail|message) (?:as|is) spam\b|help_spam
    blocked by our filter|sender domain listed|rule imposed as
    message filtered
    \bspam(?:ming)?(?: or virus)?[ :-](?:content|message|detect|reject|refused|filter|check|score|block|email|not|mail)
    \bspam[ :-](?:point|classif|probab|complaint|rule|engine|like|trap|or)
    spam-like|anti-?spam|spamassassin|spambouncer|spam ?profiler|spam/virus
    ^greylisted .{0,60}please try again in
    (?:-|:) spam\b
    \(spam\)
    spam .{0,30}exceeded
    \d spam\b
    spam ?signature
    \b(?:uribl|surbl|dbl)\b
    blacklisted (?:url|link)
    reject, id=
    high probability of
    unsolicited
    bulk[ .-](?:e?-?mail|advertising)
    (?:content|message content|mail content)(?: filter)? (?:rejected|denied|rejection)
    (?:unacceptable|banned|mail|objectionable) content
    similar to spam
    recurrent pattern
    mail score
    our (?:filters|system has detected that this message)
    message rejected for policy reasons
    work\.drbl
"""
# What is unknown, or not there, is the sender's.
SENDER: Final = r"""
    {sender}(?:{of}{is}(?:null ?mx|unknown)|{is}(?:not|n'?t) (?:be )?(?:exist|found|known|valid)|has (?:a )?null ?mx)
    verify (?:your |the )?(?:envelope )?sender|sender (?:address )?verif\w+
    unknown in (?:\w+ )?sender
    (?:not|n'?t) accept (?:any )?mail from (?:it|you|your domain|there)\b
    no longer accepts mail from
"""
HELO: Final = r"""
    (?:helo|ehlo)(?: \w+)? {is}(?:rejected|refused|invalid|unknown|not)
"""
# Nobody has been named yet.
AUTHENTICATION: Final = r"""
    authentication {is}(?:failed|required|unsuccessful|invalid)
"""
REJECTED: Final = r"""
    sender {of}(?:reject|denied|refus|fail|blacklist|block|my black)
    servers? without a valid sender|sender ?filter|bouncedeny
    delivery not authori[sz]ed|sending this from a different address
    recipient addresses rejected|\baddress rejected\b|rejected: e-?mail address is not verified
    empty e-?mail address|mail from not owned
    sender {of}(?:spammer|pre-approved|empty|invalid|allowed|accepted|valid|exist|authenticated|unknown)
    (?:invalid|bad|unrout?e?able|bogus|unknown) (?:envelope |e-?mail )?(?:sender(?! ip)|mail from|return path|from\b)
    (?:unverified|forged) (?:envelope )?(?:sender|from\b)
    sender(?:'s)? (?:address|domain) (?:must|does)
    empty (?:envelope )?(?:senders?|from|reverse)
    null senders? (?:is|are) not
    \bbatv\b
    purported responsible address
    domain of sender
    address that has been blacklisted
    (?:sender|email|e-mail|from) address{near}blacklist
    (?:not|n'?t) (?:allowed|permitted|authori[sz]ed) to (?:post|send (?:mail |messages |e-?mail )?to)
    to submit messages to this e-mail system
    list of senders
    administrative prohibition
    envelope (?:blocked|rejected)
    returned mail not accepted
    no third-party dsns
    spam reporting address
    from: domain is invalid|provide a valid from
    fully qualified email address required
    registered gateway user
    valid-address-filter
    emetteur invalide
    (?:not|n'?t) accept (?:mail|messages|e-?mail) from(?! (?:dynamic|dial|hosts|your ip))
    rule imposed mailbox access
    domain must resolve
    recursive cname
    backscatter protection
    unsigned dsn
    not subscribed(?! to ses)|must be subscribed
    in reply to mail from command
"""
NOT_REJECTED: Final = r"""
    recipient address rejected
    5\.1\.0 address rejected
    ip address rejected
"""
CONTENT: Final = r"""
    invalid mime|mime (?:complexity|error|headers)
    improper use of 8-bit
    improperly[- ]formatted
    unnecessary base64
    header size
    recipient list, exceeds policy
    too many received
    type (?:\w+ )?(?:is )?not (?:accepted|allowed)
    conversion (?:failed|required|prohibited)
    invalid message content
    bare (?:lf|cr|linefeed|newline)
    header error
"""
SPEEDING: Final = r"""
    try again slower
    rate[- ]limit(?:ed)?\b(?! exceeded)
    mail (?:at a rate|too quickly|too fast)
    (?:sending )?too (?:quickly|fast|much volume)
    (?:sending|relay|daily|hourly) (?:\w+ ){0,3}(?:quota|limit) (?:exceeded|for)
    exceeded (?:permitted|the|your|sending|hourly|daily) (?:\w+ ){0,3}(?:limits?|threshold) (?:within|for|of)
    excessive volume
    receive limit
"""
TOO_MANY: Final = r"""
    too many (?!unwanted)(?:\w+ ){0,3}(?:connections|sessions|recipients|errors from your ip|messages)
    trop de connexions
    connection (?:rate )?limit
    maximum (?:number of )?connection
    max message per connection
    max emails per hour
    numerous attempts to deliver
    frequency limited
    throttl
    message threshold exceeded
    unusual rate of
"""
POLICY: Final = r"""
    (?:policy|policies|local) (?:reasons?|violation|rejection|reject|settings|restriction)
    (?:by|to|against|violates?|our|local|security|organi[sz]ation\w*) (?:\w+ ){0,2}polic(?:y|ies)\b
    (?:illegal|prohibited|forbidden|blocked) attachment
    attachment (?:extension |type )?(?:is )?(?:forbidden|not allowed|prohibited)
    members-only|closed mailing list|by non-member
    headers? are not accepted
    protocol violation
    organizational settings
    low priority
    with multiple addresses
    mass mailer
    presents a potential
    images or other attachments
    captcha
    anti-spoofing
"""
BLOCKED: Final = r"""
    {peer}{near}(?:block(?:ed|list)|blacklist|banned|spamhaus|dnsbl|\brbl\b|abusive)
    \b(?:ips?|host|client|server|network|connections?|mta)\b {is}(?:denied|refused|dropped|rejected)
    (?:blocked|black ?listed|rejected|banned|listed|denied) (?:by|using|for abuse|in|at|on|from|ip|- see|due to|because)
    \b(?:rbl|dnsbl|xbl|sbl|pbl|orbs|spamcop|barracudacentral|abuseat|spamhaus)\b
    (?:black|block) ?list
    :blocked\)|\bblocked$|\d blocked\b
    dynamic[/ ](?:ip|zombied|address|range)|dial-?up|generic dns
    connection (?:refused|reset by peer|dropped|denied|was dropped|not accepted)
    refused to talk to me
    (?:bad|invalid|banned) (?:sender |sending )?ip\b|ip address rejected|forbidden by your ip|\bip \S+ listed as
    refused - see|mail from \S+ refused|service refused
    (?:helo|ehlo) (?:command |argument )?(?:rejected|is invalid|invalid)|bad helo|empty helo|my name was rejected
    service (?:not available|unavailable), closing
    after initial connection
    not accepting connections
    go away
    open proxy
    no access from
    access denied
    server requires confirmation|confirm this mail server
    may not be mail exchanger
    not allowed to (?:connect|send mail from)
    smtp server of your isp
    host network not allowed
    remotehost looks
    no matches to nameserver
    no valid recipients from
    unwanted messages
    sending spam|spams from your
    abus detecte
    not in whitelist
    not currently accepting mail from your ip
    has not passed validation
"""
SECURITY: Final = r"""
    authenticat(?:e|ion) (?:credentials invalid|failed|failure|required|turned on|is required)
    unauthenticated
    (?:not|without|don'?t) authenticat
    authentification (?:requise|invalide)
    verification failure
    not authorized to perform
    password (?:required|incorrect)
    executable files are not allowed
    dead domain
    not subscribed to ses
"""
