"""The table of a network's layers, and what a notebook shows of networks and traces."""
