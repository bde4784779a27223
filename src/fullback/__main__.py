"""``python -m fullback``."""

from fullback.cli import main

main()
