"""Where alerts go: a log, commands, webhooks."""
