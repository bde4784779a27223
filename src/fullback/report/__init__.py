"""The backward pass to look at: what the pages show, and the pages."""
