"""Draws the demo's catalogue: products, and where their surfaces come from."""
