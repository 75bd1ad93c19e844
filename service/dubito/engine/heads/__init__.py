"""What the outputs of a network mean."""
