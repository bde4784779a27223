"""Ways out: a network as a file."""
