"""A service that embeds texts and pictures for other processes; start it with ``python -m``."""
