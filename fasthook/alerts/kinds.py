"""New kinds of errors: a reason to refuse, or a failure of a handler, that was never seen here."""

from typing import Final

#: Kinds that an endpoint knows. Beyond: a new one is not told, since it could not be remembered.
MAX_KINDS: Final = 64
#: A new kind is over after so many steps without it.
_CALM_STEPS: Final = 60


class Kinds:
    """The kinds of errors of one endpoint."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.on: dict[str, int] = {}  # kinds that are told of → steps since they were seen last

    def step(self, counts: dict[str, int], *, is_learned: bool) -> tuple[list[str], list[str]]:
        """Take the counts of a step: which kinds are new, and which are over."""
        started = []
        for kind in counts:
            if kind in self.on:
                self.on[kind] = 0
            elif kind not in self.known and len(self.known) < MAX_KINDS:
                self.known.add(kind)
                if is_learned:
                    self.on[kind] = 0
                    started.append(kind)
        ended = []
        for kind in list(self.on):
            if kind not in counts:
                self.on[kind] += 1
                if self.on[kind] >= _CALM_STEPS:
                    del self.on[kind]
                    ended.append(kind)
        return started, ended
