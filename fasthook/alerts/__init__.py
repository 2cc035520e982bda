"""Unusual activity: counts in, alerts that begin and end out. No I/O, no clock, bounded memory."""
