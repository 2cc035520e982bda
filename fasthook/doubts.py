"""What works in a configuration, but is worth a warning."""

from fasthook.config import Endpoint
from fasthook.intake.catalogue import Provider
from fasthook.intake.schemes import Scheme
from fasthook.values import Secret


def doubts_of(settings: Endpoint, provider: Provider, scheme: Scheme | None) -> list[str]:
    """What works, but is worth a word at every start."""
    doubts = []
    if scheme is None:
        doubts.append('provider = "none": anybody who knows the path can send')
    elif settings.mode == "observe":
        doubts.append('mode = "observe": what is NOT GENUINE is accepted and handled, too')
    elif not scheme.covers_body:
        doubts.append("the signature does not cover the whole body")
    if scheme is not None and scheme.timestamp and not scheme.signs_timestamp:
        doubts.append("the time that is checked is not signed: anybody can set it")
    for secret in settings.secrets:
        doubts += _of_secret(secret)
    for handshake in provider.handshakes:
        doubts.extend(
            f"{key} is missing: the sender's handshake is refused"
            for key in handshake.missing(settings.config, settings.public_url)
        )
    if settings.events == ():
        doubts.append("events is empty: every event is ignored")
    return doubts


def _of_secret(secret: Secret) -> list[str]:
    doubts = []
    if secret.source == "plain":
        doubts.append("a plain: secret stands in the file; env:, file: or credential: hide it")
    if secret.is_short:
        doubts.append(f"the secret {secret.source} is short enough to be guessed")
    if secret.is_wrapped:
        what = "white space or quotes around it, which are taken for a part of it"
        doubts.append(f"the secret {secret.source} has {what}")
    return doubts
