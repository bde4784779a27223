"""Data sets: the built-in digits, MNIST, and one's own IDX and npz files."""

from fullback.data.dataset import Dataset as Dataset
from fullback.data.digits import digits as digits
from fullback.data.idx import load_idx as load_idx
from fullback.data.idx import load_idx_pair as load_idx_pair
from fullback.data.images import ImageFile as ImageFile
from fullback.data.images import load_image as load_image
from fullback.data.load import load_data as load_data
from fullback.data.mnist import mnist as mnist
from fullback.data.npz import load_npz as load_npz
