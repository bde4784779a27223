"""The command line: ``fullback train | eval | predict | check | diagnose | ...``."""

import sys

from fullback.cli.interrupt import exit_on_ctrl_c
from fullback.memory import is_limited

__all__ = ["main"]


def main() -> None:
    """Run the command line; the exit code is 0, 1 (failure), 2 (wrong usage) or 130 (Ctrl-C)."""
    try:
        with exit_on_ctrl_c():
            from fullback.cli.app import run

            run()
    except (ImportError, MemoryError) as error:
        if isinstance(error, ImportError) and not is_limited():
            raise
        print(f"error: there is not enough memory ({str(error)[:200]})", file=sys.stderr)
        sys.exit(1)
