"""What the line knows of an endpoint, and has counted there."""

from fasthook.intake.receiver import Endpoint
from fasthook.wire.answers import Answer


class Account:
    """How one endpoint is answered, and what was accepted there since it was last summed up.

    All in one place, and little: with thousands of endpoints it is in no cache of the processor.
    """

    def __init__(self, endpoint: Endpoint | None, success: Answer) -> None:
        """`endpoint`: None for one of fasthook's own, which nobody sends to."""
        self.success = success
        self.provider = endpoint.provider if endpoint is not None else None
        self.is_id_signed = endpoint is not None and endpoint.is_id_signed
        #: Nothing is signed, or nothing in it tells two events apart: each is one.
        self.may_repeat = endpoint is not None and (
            endpoint.may_repeat or endpoint.provider == "none"
        )
        self.keeps_rejected = endpoint is not None and endpoint.keep_rejected
        self.events = 0
        self.client = ""  # the last one, and how often it came in a row
        self.came = 0
