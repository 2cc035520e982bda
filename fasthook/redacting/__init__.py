"""Personal data and secrets in payloads, replaced by pseudonyms of the same form."""
