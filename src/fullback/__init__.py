"""Small convolutional networks on a CPU, with a backward pass you can read, check and see."""
