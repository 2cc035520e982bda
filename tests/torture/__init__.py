"""Faults on purpose, against real services: what was answered 2xx is never lost.

Short forms run with all other tests; `make torture` runs the long ones (FASTHOOK_TORTURE=full).
Each fault has a control: the same test against a service that is weakened in one place
(`weaken.py`), where the checker has to find something. A checker that finds nothing proves nothing.
"""
