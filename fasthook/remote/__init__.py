"""Requests that fasthook makes itself, to addresses that it need not trust."""
