"""What a detector has learned, as bytes and back: so that a restart does not begin anew.

Also what it counts just now: so that another worker goes on, and nothing is said twice.

Losing it is harmless, but that everything has to be learned again.
"""

from typing import Annotated, Final

import msgspec

from fasthook.alerts.clients import TopClients
from fasthook.alerts.detector import Alert, Detector, Watched
from fasthook.alerts.kinds import MAX_KINDS
from fasthook.alerts.season import Season
from fasthook.alerts.silence import Silence
from fasthook.alerts.spikes import Count, Going, Spikes

#: Of the form. A file of another one is not read.
VERSION: Final = 1
#: Since the epoch; a date far from now.
_MAX_HOUR: Final = 10_000_000


class _Season(msgspec.Struct, array_like=True):
    means: bytes
    weeks: bytes


class _Spikes(msgspec.Struct, array_like=True):
    season: _Season
    record: tuple[float, float]
    is_on: bool
    going: Going


class _Silence(msgspec.Struct, array_like=True):
    season: _Season
    quick: float
    slow: float
    quick_record: float
    slow_record: float
    quiet_s: float
    is_on: bool
    steps: Count
    was_on: bool


class _Watched(msgspec.Struct, array_like=True):
    watched_s: float
    events: _Spikes
    rejects: _Spikes
    silence: _Silence
    kinds: list[str]


class Saved(msgspec.Struct):
    """All of it."""

    version: int
    last_s: float
    hour: Annotated[int, msgspec.Meta(ge=-1, le=_MAX_HOUR)]
    hour_watched_s: float
    watched: dict[str, _Watched]
    nowhere: _Spikes
    event_clients: dict[str, float]
    reject_clients: dict[str, float]
    event_scores: dict[str, float]  # endpoint → of the client that is told of
    reject_scores: dict[str, float]
    present: list[Alert]


def encode(detector: Detector) -> bytes:
    """What it has learned, some 3 kB for each endpoint."""
    saved = Saved(
        VERSION,
        detector.last_s,
        detector.hour,
        detector.hour_watched_s,
        {name: _of_watched(watched) for name, watched in detector.watched.items()},
        _of_spikes(detector.nowhere),
        detector.event_clients.record,
        detector.reject_clients.record,
        _scores(detector.event_clients),
        _scores(detector.reject_clients),
        list(detector.alerts()),
    )
    return msgspec.msgpack.encode(saved)


def _scores(clients: TopClients) -> dict[str, float]:
    return {endpoint: clients.score(endpoint, client) for endpoint, client in clients.on.items()}


def decode(data: bytes) -> Saved:
    """What `encode` made. Raises `ValueError` for anything else."""
    if msgspec.msgpack.decode(data, type=_Version).version != VERSION:
        raise ValueError(f"its version is not {VERSION}")
    return msgspec.msgpack.decode(data, type=Saved)


class _Version(msgspec.Struct):
    version: int


def restore(detector: Detector, saved: Saved) -> None:
    """Go on from there, with the endpoints that are still watched. Raises `ValueError`."""
    detector.last_s, detector.hour = saved.last_s, saved.hour
    detector.hour_watched_s = saved.hour_watched_s
    for name, one in saved.watched.items():
        watched = detector.watched.get(name)
        if watched is not None:
            _to_watched(watched, one)
    _to_spikes(detector.nowhere, saved.nowhere)
    for clients, record in (
        (detector.event_clients, saved.event_clients),
        (detector.reject_clients, saved.reject_clients),
    ):
        clients.record = {name: n for name, n in record.items() if name in detector.names}
    for alert in saved.present:
        if alert.endpoint in detector.names:
            scores = saved.event_scores if alert.kind == "volume" else saved.reject_scores
            detector.resume(alert, scores.get(alert.endpoint, 0.0))
    detector.begin_hour()


def _of_season(season: Season) -> _Season:
    return _Season(season.means.tobytes(), bytes(season.weeks))


def _of_spikes(spikes: Spikes) -> _Spikes:
    record = (spikes.record[0], spikes.record[1])
    return _Spikes(_of_season(spikes.season), record, spikes.is_on, spikes.going)


def _of_watched(watched: Watched) -> _Watched:
    silence = watched.silence
    return _Watched(
        watched.watched_s,
        _of_spikes(watched.events),
        _of_spikes(watched.rejects),
        _Silence(
            _of_season(silence.season),
            silence.quick,
            silence.slow,
            silence.quick_record,
            silence.slow_record,
            silence.quiet_s,
            silence.is_on,
            silence.steps,
            silence.was_on,
        ),
        sorted(watched.kinds.known),
    )


def _to_spikes(spikes: Spikes, saved: _Spikes) -> None:
    spikes.season = Season(saved.season.means, saved.season.weeks)
    spikes.record = list(saved.record)
    spikes.is_on = saved.is_on
    spikes.go_on(saved.going)


def _to_silence(silence: Silence, saved: _Silence) -> None:
    silence.season = Season(saved.season.means, saved.season.weeks)
    silence.quick, silence.slow = saved.quick, saved.slow
    silence.quick_record, silence.slow_record = saved.quick_record, saved.slow_record
    silence.quiet_s, silence.is_on = saved.quiet_s, saved.is_on
    silence.steps, silence.was_on = saved.steps, saved.was_on


def _to_watched(watched: Watched, saved: _Watched) -> None:
    watched.watched_s = saved.watched_s
    _to_spikes(watched.events, saved.events)
    _to_spikes(watched.rejects, saved.rejects)
    _to_silence(watched.silence, saved.silence)
    watched.kinds.known = set(saved.kinds[:MAX_KINDS])
