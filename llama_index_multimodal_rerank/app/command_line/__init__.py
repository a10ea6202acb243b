"""``multimodal-rerank``: index a folder, search it, measure the search, open the page."""
