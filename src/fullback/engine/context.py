"""What a run tells its kernels, beside their operands: places in a worker's array of integers.

Every worker has an array of its own, because it moves on to the next batch by itself. Addresses
are those of arrays that the caller keeps alive while the run lasts.
"""

IMAGES = 0  # address of the images, in rows of IMAGE_STEP pixels
KIND = 1  # of a pixel: 0 byte, 1 float32, 2 float64
IMAGE_STEP = 2
ORDER = 3  # address: the images of the run by number, batch after batch
TARGETS = 4  # address: a label (int64), or a row of float64, for every image
WEIGHTS = 5  # address: a weight (float64) for every image; 0 where all count the same
BATCH = 6  # images in a batch
TOTAL = 7  # images in the run
STEPS = 8  # batches in the run
FIRST = 9  # place in ORDER of the batch's first image
COUNT = 10  # images in this batch
BLOCKS = 11  # blocks of 16 images in this batch
CHUNKS = 12  # of this batch: every so many blocks share a gradient, see loop.py
STEP = 13  # number of this batch in the run
MOST_BLOCKS = 14
MOST_CHUNKS = 15
ARENA_STEP = 16  # floats from one block's arena to the next; 0 where blocks share the worker's
FIGURES = 17  # address: (loss, right answers) in float64, for every batch and block
KEYS = 18  # address: a key for every batch and random layer
RANDOM = 19  # random layers
RATES = 20  # address: RATES_EACH float64 for every batch, see below
OUTPUT = 21  # address: rows of float32, the answers
SYNC = 22  # address of what the workers meet over
DONE = 23  # batches that were done, counted by the worker
DRAWS = 24  # address: a key for every place in the run, from which its image is distorted
BEGIN = 25  # number of the first batch that is run
FIRST_CHUNK = 26  # of the chunks that are worked on here; the others are another rank's
CHUNK_STEP = 27  # from one of these chunks to the next
FIRST_BLOCK = 28  # of the blocks that are dealt out to the chunks
BLOCK_STEP = 29  # from one of these blocks to the next
ROUND = 30  # blocks up to this one are the first of their chunk
ROWS = 32  # from here: addresses of a block's sixteen images
LANE_KEYS = 48  # from here: the DRAWS of a block's sixteen images
SIZE = 64
"""Integers in the array."""

RATES_EACH = 5
"""Of every batch: three numbers for the optimizer; then the share of an image's own in a mixture,
and that of the new parameters in their running average."""
MIXTURE, AVERAGE = 3, 4
