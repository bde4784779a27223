"""What is shown of a network: the table of its layers as text, and what a notebook shows.

``summary.py`` works out the rows of the table and writes them in a terminal; ``notebook.py`` writes
the same rows, and the pictures of a trace, as HTML. Nothing is computed here but what is shown.
Another column is another field of ``summary.Row``. Begin with ``summary.layer_rows``.
"""
