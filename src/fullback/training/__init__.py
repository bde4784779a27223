"""Training: optimizers, the loop, and what it tells about itself."""
