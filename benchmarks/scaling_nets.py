"""The networks of ``scaling.py``."""

from collections.abc import Callable

from fullback import Network, zoo


def ten_million(seed: int = 0) -> Network:
    """Return ``wide`` at almost five times its width: 10 million parameters."""
    layers = "conv156 relu pool conv312 relu pool flatten dense624 relu dense10"
    return Network.parse(layers, (1, 28, 28), seed=seed)


LARGEST = "10 million"
"""What takes too long for many turns."""

NETWORKS: dict[str, Callable[[], Network]] = {
    "question": zoo.question,
    "small": zoo.small,
    "wide": zoo.wide,
    "deep": zoo.deep,
    LARGEST: ten_million,
}
