"""Data sets: the built-in digits, MNIST, and one's own IDX and npz files."""

from fullback.data.arrays.idx import load_idx, load_idx_pair
from fullback.data.arrays.npz import load_npz
from fullback.data.dataset import Dataset
from fullback.data.digits import digits
from fullback.data.image_files.image_file import ImageFile, load_image
from fullback.data.load import load_data
from fullback.data.load_images import LoadedImages, load_images
from fullback.data.mnist import mnist

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
]
