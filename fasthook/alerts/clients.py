"""The clients that come most, at each endpoint: one of them may do more than any did before.

A client's score is what it sent of late: it fades by a fifth with each step, so that whoever sends
n a step has a score of 5 n. There is no history of clients, which come and go, but of the highest
score that any client of an endpoint had in one of the days before.
"""

import math
from collections.abc import Mapping
from typing import Final

#: Scores that are known. Beyond: the lower half is forgotten.
MAX_CLIENTS: Final = 2048
_FADES: Final = 0.8
_LOWEST: Final = 0.5
_FADES_DAILY: Final = 0.98

Key = tuple[str, str]  # endpoint, client


class TopClients:
    """Scores of one kind of count."""

    def __init__(self, floor: int, times_record: float) -> None:
        """`times_record`: what is unusual, in multiples of the highest score of the days before."""
        self.record: dict[str, float] = {}  # endpoint → the highest score of the days before, faded
        self.on: dict[str, str] = {}  # endpoint → the client that is told of
        self._floor = floor
        self._times_record = times_record
        self._scores: dict[Key, float] = {}
        self._peak: dict[str, float] = {}  # of this day

    def step(self, counts: Mapping[Key, int]) -> dict[str, tuple[str, float]]:
        """Take the counts of a step: the client with the highest score, and that, by endpoint."""
        scores: dict[Key, float] = {}
        for key, score in self._scores.items():
            faded = score * _FADES
            if faded >= _LOWEST or key in counts:
                scores[key] = faded
        for key, count in counts.items():
            scores[key] = scores.get(key, 0.0) + count
        if len(scores) > MAX_CLIENTS:
            highest = sorted(scores.items(), key=lambda item: -item[1])[: MAX_CLIENTS // 2]
            told = [(key, scores[key]) for key in self.on.items() if key in scores]
            scores = dict(highest + told)
        self._scores = scores
        top: dict[str, tuple[str, float]] = {}
        for (endpoint, client), score in scores.items():
            if endpoint not in top or score > top[endpoint][1]:
                top[endpoint] = (client, score)
        for endpoint, (_, score) in top.items():
            if endpoint not in self.on:
                self._peak[endpoint] = max(self._peak.get(endpoint, 0.0), score)
        return top

    def limit(self, endpoint: str) -> float:
        """From which score on a client is told of."""
        record = self.record.get(endpoint, 0.0)
        return max(float(self._floor), math.ceil(self._times_record * record) + 1)

    def score(self, endpoint: str, client: str) -> float:
        """What a client sent of late."""
        return self._scores.get((endpoint, client), 0.0)

    def resume(self, endpoint: str, client: str, score: float) -> None:
        """This client was told of by another one."""
        self.on[endpoint] = client
        self._scores[endpoint, client] = score

    def forget(self, endpoint: str) -> None:
        """Begin anew with the clients of an endpoint: what they did was told."""
        self.on.pop(endpoint, None)
        self._scores = {key: n for key, n in self._scores.items() if key[0] != endpoint}

    def end_day(self) -> None:
        """Keep what was highest in it."""
        for endpoint, peak in self._peak.items():
            self.record[endpoint] = max(self.record.get(endpoint, 0.0) * _FADES_DAILY, peak)
        self._peak.clear()
