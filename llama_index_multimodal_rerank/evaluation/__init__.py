"""Metrics and protocols of composed retrieval."""
