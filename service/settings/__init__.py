"""One YAML file and the environment → `Settings`, typed, or `SettingsInvalid` with everything that is wrong.

model.py is the settings as types, servers.py, nats.py and oauth2.py some of its sections, part.py what all sections
share; values.py durations, sizes and addresses as they are written, secret.py secrets, files.py files that are named;
presets.py providers as data; file.py YAML and environment → plain values; load.py plain values → Settings; same.py what
has changed between two of them; reference.py Settings → its JSON Schema and the table in docs/settings.md. Only the
composition root and the command line use this room: no protocol knows that pydantic exists.
"""

from service.settings.files import NamedFile, Signature, signature_in
from service.settings.load import SettingsInvalid, load_account, load_settings
from service.settings.model import (
    AccountSettings,
    IncomingSettings,
    LimitSettings,
    OutgoingSettings,
    RetrySettings,
    Settings,
    StreamSettings,
)
from service.settings.nats import NatsSettings
from service.settings.oauth2 import OAuth2Settings
from service.settings.presets import PRESETS, Preset, keeps_sent, login_remedy, needs
from service.settings.reference import settings_reference, settings_schema
from service.settings.same import changed_sections, files_as_read, files_named, files_of, kept, same
from service.settings.secret import Secret
from service.settings.servers import ImapSettings, Pop3Settings, SmtpSettings
from service.settings.values import Listen, show_duration

__all__ = [
    "PRESETS",
    "AccountSettings",
    "ImapSettings",
    "IncomingSettings",
    "LimitSettings",
    "Listen",
    "NamedFile",
    "NatsSettings",
    "OAuth2Settings",
    "OutgoingSettings",
    "Pop3Settings",
    "Preset",
    "RetrySettings",
    "Secret",
    "Settings",
    "SettingsInvalid",
    "Signature",
    "SmtpSettings",
    "StreamSettings",
    "changed_sections",
    "files_as_read",
    "files_named",
    "files_of",
    "keeps_sent",
    "kept",
    "load_account",
    "load_settings",
    "login_remedy",
    "needs",
    "same",
    "settings_reference",
    "settings_schema",
    "show_duration",
    "signature_in",
]
