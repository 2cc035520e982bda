"""Options that several commands have."""

import math
from pathlib import Path
from typing import Any

import click

from fasthook.values import Duration, Rate

config_option = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("fasthook.toml"),
    envvar="FASTHOOK_CONFIG",
    show_default=True,
    help="The configuration file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")


class DurationType(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A time with its unit, such as 10m; becomes a `Duration`, in seconds."""

    name = "time"

    def __init__(
        self, expected: str = "", *, most_s: float = math.inf, is_above_zero: bool = False
    ) -> None:
        """`expected`: the bounds, in words. `most_s`: seconds, included."""
        self._expected = expected
        self._most_s = most_s
        self._is_above_zero = is_above_zero

    def convert(self, value: Any, param: Any, ctx: Any) -> Duration:
        """See click. The message says what was got and expected."""
        try:
            duration = Duration.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if duration > self._most_s or (self._is_above_zero and not duration):
            self.fail(f"{value!r}; expected {self._expected}", param, ctx)
        return duration


class RateType(click.ParamType):  # type: ignore[type-arg]
    """So many a time, such as 10/s; becomes a `Rate`, a second."""

    name = "rate"

    def convert(self, value: Any, param: Any, ctx: Any) -> Rate:
        """See click. The message says what was got and expected."""
        try:
            return Rate.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
