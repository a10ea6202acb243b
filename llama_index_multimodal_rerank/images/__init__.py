"""The one door through which outside bytes come in."""
