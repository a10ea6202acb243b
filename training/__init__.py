"""Recipes that train the demo's checkpoints; part of the repository, not of the package."""
