"""Tables of which nothing is ever cut, however narrow the terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table

_WIDEST: Final = 10_000
_FOLDED: Final = 12
"""A column that may be folded is made no narrower than this."""


def needed_width(table: Table) -> int:
    """Characters that a table takes where columns with `no_wrap` are whole, and others folded."""
    console = Console(width=_WIDEST)
    needed = console.measure(table).maximum
    for column in table.columns:
        if not column.no_wrap:
            cells = [console.measure(cell) for cell in (column.header, *column.cells)]
            needed -= max(cell.maximum for cell in cells) - min(_FOLDED, max(cell.minimum for cell in cells))
    return needed


def print_whole(table: Table, console: Console) -> None:
    """Print a table; on a terminal that is too narrow its lines go on in the next.

    Columns of figures have to have `no_wrap`; what others hold is folded, between words where it has some.
    """
    for column in table.columns:
        column.overflow = "fold"
    console.width = max(console.width, needed_width(table))
    console.print(table)
