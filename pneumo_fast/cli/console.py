"""Where a command writes: results, what accompanies them, and errors, each a console of its own.

Results and their company go to standard output. With ``--json`` that is standard error for as long as the command
runs, so this module may be imported only then: what a console can show is found out when it is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from pneumo_fast.formatting import harmless


class Terminal(Console):
    """Writes texts from outside as they are: no markup, and no control characters."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a text of what is printed, or of a table's cell."""
        return super().render_str(harmless(text), **options)

    def on_broken_pipe(self) -> None:
        """Go on without a reader: what a command does, and writes to the disk, is wanted though nobody looks on."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())
        os.close(nowhere)


SPEAKS: Final = os.environ.get("RANK", "0") == "0"
"""Of several processes that train together the first speaks; warnings and errors are everyone's."""
out = Terminal(highlight=False, markup=False, quiet=not SPEAKS)
"""Results."""
info = Terminal(highlight=False, markup=False, quiet=not SPEAKS)
"""What ``--quiet`` leaves out: progress, plans, what to type next."""
err = Terminal(stderr=True, highlight=False, markup=False)


@contextmanager
def quieted(*, results: bool) -> Iterator[None]:
    """Leave out all but warnings and errors, and the results unless they are to be left out as well."""
    before = info.quiet, out.quiet
    info.quiet, out.quiet = True, out.quiet or results
    try:
        yield
    finally:
        info.quiet, out.quiet = before


def show_error(message: str) -> None:
    """One line on standard error, however long."""
    err.print(f"error: {' '.join(message.split())}", style="bold red", soft_wrap=True)
