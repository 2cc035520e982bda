"""How many events may wait in memory, and how many bytes of them."""

from typing import NoReturn

from fasthook.errors import BacklogFull
from fasthook.model import Delivery

#: What one waiting event costs beside its body: headers, head, objects; measured, rounded up.
OVERHEAD_BYTES = 4096
#: A full backlog empties at the handlers' pace, which nobody knows: come back soon and see.
RETRY_AFTER_S = 2


class Backlog:
    """Counts deliveries from acceptance until no handler has them in line or in hand.

    Full: the delivery waits on disk, or without a spool its sender is told 503 and comes again.
    """

    __slots__ = ("capacity", "capacity_bytes", "count", "bytes")

    def __init__(self, capacity: int, capacity_bytes: int) -> None:
        self.capacity = capacity
        self.capacity_bytes = capacity_bytes
        self.count = 0
        self.bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether not even a small delivery finds room: known before any work on a request."""
        return self.count >= self.capacity

    def enter(self, delivery: Delivery) -> bool:
        """Take the delivery in, if there is room."""
        total = self.bytes + len(delivery.body) + OVERHEAD_BYTES
        if total > self.capacity_bytes or self.count >= self.capacity:
            return False
        self.bytes = total
        self.count += 1
        return True

    def readmit(self, delivery: Delivery) -> None:
        """Take in what was asked for while there was `room`."""
        self.bytes += len(delivery.body) + OVERHEAD_BYTES
        self.count += 1

    def refuse(self) -> NoReturn:
        """Raise `BacklogFull`."""
        raise BacklogFull(
            f"{self.count} events of {self.bytes} bytes wait, "
            f"limits {self.capacity} and {self.capacity_bytes}",
            RETRY_AFTER_S,
        )

    @property
    def room(self) -> int:
        """How many more deliveries of the usual size find room."""
        usual = self.bytes // self.count if self.count else OVERHEAD_BYTES
        return min(self.capacity - self.count, (self.capacity_bytes - self.bytes) // usual)

    def leave(self, delivery: Delivery) -> None:
        """No handler has the delivery any more."""
        self.count -= 1
        self.bytes -= len(delivery.body) + OVERHEAD_BYTES
