"""The shape of payloads: which fields they have, and of which types; never a value.

shape     payloads → what was seen at each place
structs   that → a module with msgspec structs
drift     payloads, oldest first → what changed, and when
"""
