"""Orders to the spool: to the service that holds it, or carried out here while none runs."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import apsw

from fasthook import control
from fasthook.control import Forget, Prune, Replay
from fasthook.errors import ConfigError, FasthookError
from fasthook.spool.indexer import Settings
from fasthook.spool.lock import InUse
from fasthook.spool.offline import Offline


@contextlib.contextmanager
def spool_errors(path: Path) -> Iterator[None]:
    """Turn what the spool's files raise into a `ConfigError` that names the file."""
    try:
        yield
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror or error}") from None
    except (apsw.Error, FasthookError) as error:
        raise ConfigError(f"{path}: {error}") from None


def check_spool(path: Path) -> None:
    """Raise `ConfigError` where there is no spool: commands make none."""
    with spool_errors(path):
        if not (path / "journal").is_dir():
            raise ConfigError(f"{path}: there is no spool; `fasthook serve` makes it")


class Orders:
    """Gives orders; `is_service` says whether a service takes them."""

    def __init__(self, path: Path) -> None:
        """Raises `ConfigError`."""
        self._path = path
        self._offline: Offline | None = None
        try:
            with spool_errors(path):
                self._offline = Offline(path)
        except InUse as in_use:
            self._pid = in_use.pid

    @property
    def is_service(self) -> bool:
        """Whether a service holds the spool."""
        return self._offline is None

    def __enter__(self) -> "Orders":
        return self

    def __exit__(self, *error: object) -> None:
        if self._offline is not None:
            self._offline.__exit__(*error)

    def give(self, order: Replay | Forget) -> None:
        """Have it done; it is stored when this returns. Raises `ConfigError`."""
        if self._offline is not None:
            with spool_errors(self._path):
                self._offline.order(control.record_of(order))
        else:
            self._send(order)

    def prune(self, settings: Settings) -> int | None:
        """Drop what is old; how many bytes that freed, or None: the service does it soon."""
        if self._offline is not None:
            with spool_errors(self._path):
                return self._offline.prune(settings)
        self._send(Prune(settings.retention_s))
        return None

    def _send(self, order: Replay | Forget | Prune) -> None:
        try:
            control.send(self._path, order)
        except control.Refused as error:
            raise ConfigError(str(error)) from None
        except OSError:
            raise ConfigError(
                f"{self._path}: process {self._pid} holds it, and takes no orders "
                "(it is starting, stopping, or another command)"
            ) from None
