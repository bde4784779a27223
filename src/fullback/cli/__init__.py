"""The command line: ``fullback train | eval | predict | summary``."""

from fullback.cli.app import main

__all__ = ["main"]
