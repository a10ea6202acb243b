"""What agents call and read: a search tool that takes a picture, and results as text."""
