"""Arrays in files: IDX, .npz, and folders of .npy files that stay on the disk.

Each reader believes nothing that a header claims before it is held against the file's size. Begin
with idx.py. A reader of another format returns pairs (images, labels), and load.py calls it.
"""
