"""The gate of images: what is in them, how large they are, what is known against it, and whether they start."""
