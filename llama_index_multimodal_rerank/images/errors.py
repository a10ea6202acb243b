"""What is raised where a picture cannot be read."""

from __future__ import annotations

from ..logs import escape_control


class ImageLoadError(ValueError):
    """A picture that cannot be read.

    Attributes:
        source: the picture as people would name it: a path, a URL, or a short description.
        reason: what is wrong with it.
    """

    def __init__(self, source: str, reason: str) -> None:
        # Decoders and servers quote what they were sent.
        source, reason = escape_control(source), escape_control(reason)
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read the picture {self.source}: {self.reason}"


class ImageNotFoundError(ImageLoadError, FileNotFoundError):
    """A picture file that does not exist."""

    __str__ = ImageLoadError.__str__


class UrlError(ValueError):
    """A URL that is not fetched, or could not be; the message says why."""
