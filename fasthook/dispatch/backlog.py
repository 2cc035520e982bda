"""How many events may wait in memory, and how many bytes of them."""

from typing import NoReturn

from fasthook.errors import BacklogFull
from fasthook.model import Delivery

#: What one waiting event costs beside its body: headers, head, objects; measured, rounded up.
OVERHEAD_BYTES = 4096
#: A full backlog empties at the handlers' pace, which nobody knows: come back soon and see.
RETRY_AFTER_S = 2


class Backlog:
    """Counts deliveries from acceptance until their last handler has settled.

    Full: `enter` raises, the sender is told 503 and comes again; nothing was accepted.
    """

    __slots__ = ("capacity", "capacity_bytes", "count", "bytes", "is_full")

    def __init__(self, capacity: int, capacity_bytes: int) -> None:
        self.capacity = capacity
        self.capacity_bytes = capacity_bytes
        self.count = 0
        self.bytes = 0
        #: Not even a small delivery finds room: known before any work is done on a request.
        self.is_full = False

    def enter(self, delivery: Delivery) -> None:
        """Take the delivery in. Raises `BacklogFull`."""
        total = self.bytes + len(delivery.body) + OVERHEAD_BYTES
        if self.is_full or total > self.capacity_bytes:
            self.refuse()
        self.bytes = total
        self.count += 1
        if self.count >= self.capacity:
            self.is_full = True

    def refuse(self) -> NoReturn:
        """Raise `BacklogFull`."""
        raise BacklogFull(
            f"{self.count} events of {self.bytes} bytes wait, "
            f"limits {self.capacity} and {self.capacity_bytes}",
            RETRY_AFTER_S,
        )

    def leave(self, delivery: Delivery) -> None:
        """The delivery is done or dead for all its handlers."""
        self.count -= 1
        self.is_full = False
        self.bytes -= len(delivery.body) + OVERHEAD_BYTES
