"""Every way in for images and labels, to a `Dataset`: arrays (N, C, H, W) with their labels.

``load_data`` (``load.py``) finds out what a name, a file or a folder is, and calls its reader:
``arrays/`` for IDX, npz and npy files, ``image_files/`` for pictures, folders and Parquet files of
them, ``tables/`` for CSV files, ``batches.py`` for what is iterated. ``store.py`` is where arrays
are made, in memory or in files; ``unpack.py`` has them made in files. ``split.py`` keeps images for
testing where a source has none, ``dataset.py`` checks the result, ``load_images.py`` reads images
without labels. Begin with ``load.py``; another format is a reader and a line there.
"""

from fullback.data.arrays.idx import load_idx, load_idx_pair
from fullback.data.arrays.npz import load_npz
from fullback.data.dataset import Dataset
from fullback.data.digits import digits
from fullback.data.image_files.image_file import ImageFile, load_image
from fullback.data.load import load_data
from fullback.data.load_images import LoadedImages, load_images
from fullback.data.mnist import mnist
from fullback.data.unpack import unpack_data

__all__ = [
    "Dataset",
    "ImageFile",
    "LoadedImages",
    "digits",
    "load_data",
    "load_idx",
    "load_idx_pair",
    "load_image",
    "load_images",
    "load_npz",
    "mnist",
    "unpack_data",
]
