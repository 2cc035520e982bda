"""1. bytes ⇄ Request. Knows HTTP, knows no webhook."""
