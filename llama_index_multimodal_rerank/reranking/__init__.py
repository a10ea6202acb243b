"""Reranking: from candidates to one order."""
