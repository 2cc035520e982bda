"""What commands that read a spool share: options, opening it, and how things are shown.

Whatever a sender chose is escaped before it is shown: a terminal must not obey it.
"""

import base64
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
import msgspec

from fasthook import config
from fasthook.cli.options import config_option, json_option
from fasthook.cli.tables import new_table, show
from fasthook.config import Config, spool_of
from fasthook.errors import ConfigError
from fasthook.logs import escape, one_line
from fasthook.model import iso
from fasthook.spool.changes import NEVER_NS
from fasthook.spool.found import STATES, Filter, Found
from fasthook.spool.names import position_named
from fasthook.spool.queries import Reader
from fasthook.values import Duration

F = TypeVar("F", bound=Callable[..., Any])

# --- options --------------------------------------------------------------------------------------


class _Moment(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A time: so long ago, or a date; becomes ns."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        now = datetime.now(UTC).timestamp()
        try:
            return _within(now - Duration.parse(value))
        except ValueError:
            pass
        try:
            return _within(datetime.fromisoformat(value.strip()).astimezone().timestamp())
        except (ValueError, OverflowError, OSError):
            expected = 'a time ago such as "2h" or "7d", or a date such as "2026-05-17T14:30"'
            self.fail(f"{value!r}; expected {expected}", param, ctx)


def _within(seconds: float) -> int:
    """As ns, within what the index can compare."""
    return max(0, min(NEVER_NS, int(seconds * 1e9)))


class _Name(click.ParamType):  # type: ignore[type-arg]
    """The name of a delivery; becomes its position."""

    name = "name"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        try:
            return position_named(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


MOMENT: Final = _Moment()
DELIVERY_NAME: Final = _Name()
_FILTERS: Final = (
    click.option("--endpoint", default="", help="Of this endpoint."),
    click.option("--type", "event_type", default="", help="Of this event type."),
    click.option("--id", "event_id", default="", help="With this event id."),
    click.option("--since", type=MOMENT, help='Received then or later: "2h" ago, or a date.'),
    click.option("--until", type=MOMENT, help="Received before."),
)
_STATE: Final = click.option(
    "--state", "states", multiple=True, type=click.Choice(list(STATES)), help="May come twice."
)


def filter_options(*, has_states: bool) -> Callable[[F], F]:
    """The options that say which deliveries are wanted; `filter_of` takes them."""

    def decorate(function: F) -> F:
        for option in reversed((*_FILTERS, _STATE) if has_states else _FILTERS):
            function = option(function)
        return function

    return decorate


def page_options(function: F) -> F:
    """How many, and from where on."""
    limit = click.option(
        "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many."
    )
    before = click.option("--before", type=DELIVERY_NAME, help="Older than this one, by name.")
    return limit(before(function))


def filter_of(options: Mapping[str, Any]) -> Filter:
    """What the options of `filter_options` and `page_options` say."""
    wanted = Filter(
        endpoint=options["endpoint"],
        event_type=options["event_type"],
        event_id=options["event_id"],
        states=tuple(STATES[name] for name in options.get("states", ())),
        since_ns=options["since"] or 0,
        until_ns=NEVER_NS if options["until"] is None else options["until"],
    )
    if wanted.since_ns >= wanted.until_ns:
        raise click.UsageError("--since: it is not before --until, so nothing can match")
    before = options.get("before")
    return wanted if before is None else msgspec.structs.replace(wanted, before=before)


# --- opening --------------------------------------------------------------------------------------


class Spool:
    """A configured spool, opened for reading."""

    def __init__(self, config_path: Path) -> None:
        """Raises `ConfigError`; ends the command where nothing is kept."""
        # An operator's shell need not have the service's secrets.
        self.settings = config.load(config_path, has_secrets=False)
        self.path = path_of(self.settings)
        self.reader = Reader(self.path)

    def check_endpoint(self, name: str) -> None:
        """Raise `ConfigError` for one that is not configured: call it when nothing was found."""
        known = [endpoint.name for endpoint in self.settings.endpoint]
        if name and name not in known:
            raise ConfigError(
                f"--endpoint: {name!r}; nothing of it is in the spool, and "
                f"{self.settings.source} has: {', '.join(known)}"
            )


def path_of(settings: Config) -> Path:
    """Where the spool is; ends the command where nothing is kept."""
    if settings.spool.durability == "none":
        fail(f'{settings.source}: spool.durability is "none": nothing is kept')
    return spool_of(settings)


def fail(text: str) -> NoReturn:
    """End the command: what was asked about is not there, or bad."""
    click.echo(f"error: {text}", err=True)
    sys.exit(1)


def opens_spool(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command `spool` and `as_json`, from --config and --json."""

    @config_option
    @json_option
    @functools.wraps(function)
    def command(config_path: Path, as_json: bool, **options: Any) -> Any:
        spool = Spool(config_path)
        try:
            with spool.reader:
                return function(spool=spool, as_json=as_json, **options)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise  # click ends quietly
            fail(f"{error.filename or spool.path}: {error.strerror}")

    return command


# --- showing --------------------------------------------------------------------------------------


def say(text: str) -> None:
    """For people alone: standard output is for what was asked for."""
    click.echo(text, err=True)


def say_more(count: int, limit: int, last: str, name: str = "--before") -> None:
    """How to get the next page, if there may be one."""
    if count >= limit:
        say(f"older ones: the same with {name} {last}")


def echo_json(value: Any) -> None:
    """One JSON object on a line of its own."""
    click.echo(one_line(msgspec.json.encode(value).decode()))


def moment(at_ns: int) -> str:
    """A time for people: local, to the second."""
    if at_ns <= 0:
        return ""
    return f"{datetime.fromtimestamp(at_ns // 10**9).astimezone():%Y-%m-%d %H:%M:%S}"


def facts(found: Found) -> dict[str, Any]:
    """A delivery for programs."""
    return {
        "name": found.name,
        "endpoint": found.endpoint,
        "type": found.event_type,
        "id": found.event_id,
        "received_at": iso(found.received_at_ns),
        "state": found.state.name.lower(),
    }


_COLUMNS: Final = ("received", "name", "endpoint", "type", "id", "state")


def cells(found: Found) -> Sequence[str]:
    """A delivery for people: when, name, endpoint, type, id and state."""
    texts = (found.name, found.endpoint, found.event_type, found.event_id)
    state = found.state.name.lower()
    return (moment(found.received_at_ns), *map(escape, texts), state)


def echo_deliveries(found: Sequence[Found], as_json: bool) -> None:
    """A list of deliveries: a table, or an object on each line."""
    table = new_table(*_COLUMNS)
    table.columns[1].no_wrap = True  # it is to be copied
    for delivery in found:
        if as_json:
            echo_json(facts(delivery))
        else:
            table.add_row(*cells(delivery))
    if not as_json:
        show(table)


def body_facts(body: bytes) -> dict[str, str]:
    """A body in JSON: as text, or in base64 if it is none."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}
