"""Tables: as wide as the terminal, and whole where nobody looks at the width."""

from rich.console import Console
from rich.table import Table

#: In a pipe, lines are for programs: nothing is cut or wrapped.
_PIPE_WIDTH = 1000


def new_table(*columns: str) -> Table:
    """A table without lines."""
    return Table(*columns, box=None, pad_edge=False)


def show(table: Table) -> None:
    """Print it. What stands in it is text, and no markup."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(table)
