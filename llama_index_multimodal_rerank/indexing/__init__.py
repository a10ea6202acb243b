"""Catalogues too large for one process: indexing on Ray."""
