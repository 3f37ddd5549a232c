"""An account's mailboxes over its few connections."""
