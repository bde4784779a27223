"""What predictions are worth: figures, curves and the pictures of them."""
