"""Delivery ⇄ disk: what is answered with 2xx is here first. The only SQL, the only fsync."""
