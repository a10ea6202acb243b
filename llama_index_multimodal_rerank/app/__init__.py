"""A page and a command line to try composed image retrieval with, and what the two share.

What they share knows no Gradio and no terminal, and keeps nothing of a search in globals:

- :mod:`.models`: the embedding and the reranker, chosen by name, loaded once for all searches.
- :mod:`.collections`: a collection to search: an existing one, one of a folder, the demo's catalogue.
- :mod:`.search`: a search as a value, and its result as a value: both lists, movements, seconds, sheets.
- :mod:`.filters`: ``price<20`` as a filter. :mod:`.metadata_fields`: what can be filtered by.
- :mod:`.audit_words`: what was right and wrong with the model's answers, in sentences.
"""
