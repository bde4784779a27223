"""The built-in data set: handwritten digits that need no download."""

from __future__ import annotations

import numpy as np

from fullback.data.dataset import Dataset
from fullback.data.split import Split, split


def digits(how: Split | None = None) -> Dataset:
    """Load 1,797 handwritten digits, brought to the form of MNIST.

    scikit-learn carries them as 8x8 images of 0..16. Here each is enlarged to 28x28 uint8,
    0..255: a glyph of about 21 pixels inside a margin of zeros, white on black.

    Parameters
    ----------
    how : Split, optional
        Which digits are kept for testing; by default a fifth, always the same.

    Returns
    -------
    Dataset
        1,437 training and 360 test images of shape (1, 28, 28), with each digit
        in proportion.

    References
    ----------
    E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
    Repository, 1998 (its test part, as distributed with scikit-learn).
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    source = load_digits()
    # Glyphs touch the edge of their 8x8 frame: with a pixel of margin, bicubic rounds that too.
    framed = np.pad(source.images * (255 / 16), [(0, 0), (1, 1), (1, 1)]).astype(np.float32)
    bicubic = Image.Resampling.BICUBIC
    enlarged = np.stack(
        [np.asarray(Image.fromarray(image).resize((26, 26), bicubic)) for image in framed]
    )
    # Bicubic overshoots beside sharp edges, below 0 and above 255.
    x = np.pad(enlarged.round().clip(0, 255).astype(np.uint8), [(0, 0), (1, 1), (1, 1)])
    return split("digits", x[:, np.newaxis], source.target, how=how)
