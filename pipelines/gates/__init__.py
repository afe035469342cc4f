"""What a candidate must show before anything serves it; every gate fails closed."""
