"""Networks as files: what is written, and how it is read and checked.

``safetensors.py`` is the format of this package: the arrays, and the architecture as JSON. Another
format is another file with one function that takes a ``Model`` and a path, and writes it whole or
not at all by ``atomic.write_atomically``. Begin with ``safetensors.write_model``.
"""
