"""What predictions are worth, and pictures of it.

``metrics.py`` computes figures from labels and probabilities alone: accuracy, a class's precision
and recall, curves, thresholds. ``plots.py`` draws them, and training, by matplotlib. Another figure
is a field of ``metrics.Metrics`` and a line of ``measure``. Begin with ``metrics.measure``.
"""
