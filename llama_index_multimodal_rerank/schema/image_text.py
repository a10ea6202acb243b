"""ImageText: the string that carries a picture.

LlamaIndex hands texts to its embedding models as strings. An ``ImageText`` is
an ordinary ``str`` to every class in between, and text + picture to
:class:`~llama_index_multimodal_rerank.VisualizedBGEEmbedding`.
"""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from typing import TYPE_CHECKING

from ..images.access import DEFAULT_ACCESS
from ..images.sources import describe_source

if TYPE_CHECKING:
    from ..images.access import ImageAccess
    from ..images.sources import ImageSource

IMAGE_DIGEST_KEY = "image_digest"
"""Metadata key under which our nodes keep the digest of their picture's bytes."""

_DIGEST_TAG = re.compile(rf"{IMAGE_DIGEST_KEY}: (?:sha256|unread):[0-9a-f]{{64}}")
_NAME_TAG = re.compile(rf"\[{IMAGE_DIGEST_KEY}: unread:[0-9a-f]{{64}}\]\Z")


class ImageText(str):
    """A text with a picture; a ``str`` equal to the text.

    Pass it wherever LlamaIndex takes a query or a text as a string::

        retriever.retrieve(ImageText("a phone case with this", image="leopard.jpg"))

    Args:
        text: the text; may be empty if there is a picture.
        image: path (``str`` or ``Path``), bytes, ``BytesIO``, base64, data URI, http(s) URL or
            Pillow image. It is decoded only when it is embedded.
        digest: ``"sha256:…"`` of the picture if it is known already; computed otherwise, when
            first needed.

    Attributes:
        text: the text alone, also where the string itself is :meth:`tagged`.
        image: the picture's source, or None.
    """

    text: str
    image: ImageSource | None
    _digest: str | None

    def __new__(
        cls, text: str = "", image: ImageSource | None = None, *, digest: str | None = None
    ) -> ImageText:
        """Make the string; see the class."""
        self = super().__new__(cls, text)
        self.text = str(text)
        if isinstance(image, (BytesIO, bytearray, memoryview)):  # may change or be consumed under us
            image = image.getvalue() if isinstance(image, BytesIO) else bytes(image)
        self.image = image
        self._digest = digest
        return self

    @property
    def expected_digest(self) -> str | None:
        """The digest the picture is known to have, None while it was never read."""
        return self._digest

    def with_digest(self, access: ImageAccess = DEFAULT_ACCESS) -> ImageText:
        """Return the same text and picture under a string that is unique to the pair.

        The string ends in ``[image_digest: sha256:…]``, so that caches keyed by it tell
        pictures, and a picture from a plain text, apart. Without a picture, self.

        Args:
            access: what may be read, where the digest is not known yet.

        Raises:
            ImageLoadError: the picture's bytes cannot be read.
        """
        if self.image is None or (_DIGEST_TAG.search(self) and not _NAME_TAG.search(self)):
            return self
        digest = self._digest or access.digest(self.image)
        return self._tagged(digest, digest)

    def with_name(self, name: str) -> ImageText:
        """Return the same under a string that stands in until the digest is known: nothing is read.

        Args:
            name: what tells the picture from others, such as its path.
        """
        return self._tagged(
            f"unread:{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}", None
        )

    def _tagged(self, tag: str, digest: str | None) -> ImageText:
        value = f"{self.text}\n[{IMAGE_DIGEST_KEY}: {tag}]".lstrip()
        tagged = super().__new__(type(self), value)
        tagged.text, tagged.image, tagged._digest = self.text, self.image, digest
        return tagged

    def __repr__(self) -> str:
        if self.image is None:
            return f"ImageText({self.text!r})"
        return f"ImageText({self.text!r}, image={describe_source(self.image)})"


def has_lost_image(text: str) -> bool:
    """Tell whether a plain string names a picture that it no longer carries.

    That happens when a text splitter or another class copies the text and metadata of one of
    our nodes into a node of its own: embedding the string would be embedding something else.
    """
    return getattr(text, "image", None) is None and _DIGEST_TAG.search(text) is not None
