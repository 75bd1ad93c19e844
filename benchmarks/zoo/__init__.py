"""Networks as they are published: how many are exported, loaded and answered as in eager mode."""
