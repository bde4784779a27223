"""The explorer: a server on this machine, and what it does for the page."""
