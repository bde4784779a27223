"""The command line: ``fullback train | eval | predict | check | diagnose | ...``.

A command is a function in a file of its own, named in ``app.py``; its options are declared in
``options.py`` where several have them, those of training in ``train_options.py``, and what they
name is loaded by ``inputs.py``. ``output.py`` writes for people and for machines, and turns errors
into one line and an exit code. ``train.py`` makes a ``recipe``, which a ``session`` trains. Begin
with ``program.py``, the smallest command.
"""

import sys

from fullback.cli.interrupt import exit_on_ctrl_c
from fullback.memory import is_limited

__all__ = ["main"]


def main() -> None:
    """Run the command line; the exit code is 0, 1 (failure), 2 (wrong usage) or 130 (Ctrl-C)."""
    try:
        with exit_on_ctrl_c():
            from fullback.cli.app import run
            from fullback.cli.team import be_silent

            be_silent()
            run()
    except (ImportError, MemoryError) as error:
        if isinstance(error, ImportError) and not is_limited():
            raise
        print(f"error: there is not enough memory ({str(error)[:200]})", file=sys.stderr)
        sys.exit(1)
