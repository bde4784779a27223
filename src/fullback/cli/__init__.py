"""The command line: ``fullback train | eval | predict | check | diagnose | ...``."""

from fullback.cli.interrupt import exit_on_ctrl_c

__all__ = ["main"]


def main() -> None:
    """Run the command line; the exit code is 0, 1 (failure), 2 (wrong usage) or 130 (Ctrl-C)."""
    with exit_on_ctrl_c():
        from fullback.cli.app import run

        run()
