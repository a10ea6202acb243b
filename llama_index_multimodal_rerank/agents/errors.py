"""What an LLM is told when its call cannot be carried out."""


class SearchArgumentError(ValueError):
    """Arguments that a search cannot be made of; the message is for the LLM, and safe to show it."""
