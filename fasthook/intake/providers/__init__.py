"""The catalogue: a table for each provider, and code for what tables can't say."""
