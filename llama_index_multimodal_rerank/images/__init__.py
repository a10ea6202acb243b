"""The one door through which outside bytes come in: every picture is read through ImageAccess."""
