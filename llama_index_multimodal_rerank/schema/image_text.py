"""ImageText: the string that carries a picture.

LlamaIndex hands texts to its embedding models as strings. An ``ImageText`` is
an ordinary ``str`` to every class in between, and text + picture to
:class:`~llama_index_multimodal_rerank.VisualizedBGEEmbedding`.
"""

from __future__ import annotations

import hashlib
import re
from io import BytesIO
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ..images.access import DEFAULT_ACCESS
from ..images.sources import describe_source
from .references import carrier_of, find_references, new_reference, set_carrier

if TYPE_CHECKING:
    from ..images.access import ImageAccess
    from ..images.sources import ImageSource

IMAGE_DIGEST_KEY = "image_digest"
"""Metadata key under which our nodes keep the digest of their picture's bytes."""

_DIGEST_TAG = re.compile(rf"(\[?){IMAGE_DIGEST_KEY}: (sha256|unread):[0-9a-f]{{64}}")
_NAME_TAG = re.compile(rf"\[{IMAGE_DIGEST_KEY}: unread:[0-9a-f]{{64}}\]\Z")
_ENDS_IN_TAG = re.compile(rf"\[{IMAGE_DIGEST_KEY}: (?:sha256|unread):[0-9a-f]{{64}}\](?:\n\[text\])*\Z")


class ImageText(str):
    """A text with a picture; a ``str`` equal to the text, if there is any.

    A picture alone is not an empty string: LlamaIndex would take it for no query at all. Its characters are a
    reference to itself, ``[#…]``. ``str(...)`` of a text with a picture ends in such a reference, and carries
    the picture on: LlamaIndex's tools call it, and may copy the characters into a string of their own.

    Pass it wherever LlamaIndex takes a query or a text as a string::

        retriever.retrieve(ImageText("a phone case with this", image="leopard.jpg"))

    Args:
        text: the text; may be empty if there is a picture.
        image: path (``str`` or ``Path``), bytes, ``BytesIO``, base64, data URI, http(s) URL or
            Pillow image. It is decoded only when it is embedded.
        digest: ``"sha256:…"`` of the picture if it is known already; computed otherwise, when
            first needed.

    Attributes:
        text: the text alone, whatever the characters of the string itself.
        image: the picture's source, or None.
    """

    text: str
    image: ImageSource | None
    _digest: str | None
    _shows_digest: bool = False
    _awaits_digest: bool = False
    _as_str: ImageText | None = None

    def __new__(
        cls, text: str = "", image: ImageSource | None = None, *, digest: str | None = None
    ) -> ImageText:
        """Make the string; see the class."""
        words = text.text if isinstance(text, ImageText) else str(text)
        reference = "" if words or image is None else new_reference()
        self = super().__new__(cls, words or reference)
        self.text = words
        if isinstance(image, (BytesIO, bytearray, memoryview)):  # may change or be consumed under us
            image = image.getvalue() if isinstance(image, BytesIO) else bytes(image)
        self.image = image
        self._digest = digest
        if reference:
            set_carrier(reference, self)
        return self

    @classmethod
    def of_known_digest(cls, text: str, image: ImageSource, digest: str) -> ImageText:
        """Return what ``ImageText(text, image, digest=digest).with_digest()`` does, in one step.

        Args:
            text: may be empty.
            image: path, base64, data URI or URL.
            digest: ``"sha256:…"`` of the picture.
        """
        blank = super().__new__(cls)
        blank.text = text.text if isinstance(text, ImageText) else text
        blank.image, blank._digest = image, digest
        return blank._tagged(digest, digest)

    def __str__(self) -> str:
        """Return characters that lead to the picture, carrying it; for the text alone, see ``text``."""
        if self.image is None or not str.__eq__(self, self.text):
            return self
        if self._as_str is None:
            reference = new_reference()
            self._as_str = self._with_characters(f"{self.text} {reference}", self._digest)
            set_carrier(reference, self._as_str)
        return self._as_str

    def __format__(self, format_spec: str) -> str:
        """Format the characters themselves: prompts show the words, without a reference."""
        return str.__str__(self).__format__(format_spec)

    def __reduce__(self) -> tuple[Any, ...]:
        # References are not copied, they are made anew.
        with_digest = str.__str__(self) if self._shows_digest else None
        return _restore, (type(self), self.text, self.image, self._digest, with_digest)

    @property
    def expected_digest(self) -> str | None:
        """The digest the picture is known to have, None while it was never read."""
        return self._digest

    def with_digest(self, access: ImageAccess = DEFAULT_ACCESS) -> ImageText:
        """Return the same text and picture under a string that is unique to the pair.

        The string ends in ``[image_digest: sha256:…]``, so that caches keyed by it tell
        pictures, and a picture from a plain text, apart. Without a picture, self; a text that happens to
        end so gets a line ``[text]`` behind it.

        Args:
            access: what may be read, where the digest is not known yet.

        Raises:
            ImageLoadError: the picture's bytes cannot be read.
        """
        # Not told by the characters: the text may hold whatever words its author likes.
        if self.image is None:
            return self if self._shows_digest or not _ENDS_IN_TAG.search(self) else self._marked_as_text()
        if self._shows_digest and not _NAME_TAG.search(self):
            return self
        digest = self._digest or access.digest(self.image)
        return self._tagged(digest, digest)

    def to_be_read(self) -> ImageText:
        """Return a copy that is told its digest by whoever reads the picture."""
        twin = self._with_characters(str.__str__(self), None)
        twin._awaits_digest = True
        return twin

    @property
    def awaits_digest(self) -> bool:
        """Whether this is a copy made by :meth:`to_be_read`, and its picture was not read yet."""
        return self._awaits_digest and self._digest is None

    def note_digest(self, digest: str) -> None:
        """Remember the digest of the bytes that were read, on a copy made by :meth:`to_be_read`."""
        self._digest = digest

    def with_name(self, name: str) -> ImageText:
        """Return the same under a string that stands in until the digest is known: nothing is read.

        Args:
            name: what tells the picture from others, such as its path.
        """
        return self._tagged(
            f"unread:{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}", None
        )

    def _tagged(self, tag: str, digest: str | None) -> ImageText:
        with_digest = self._with_characters(f"{self.text}\n[{IMAGE_DIGEST_KEY}: {tag}]".lstrip(), digest)
        with_digest._shows_digest = True
        _WITH_DIGEST[str.__str__(with_digest)] = with_digest
        return with_digest

    def _marked_as_text(self) -> ImageText:
        marked = self._with_characters(f"{self.text}\n[text]", None)
        marked._shows_digest = True
        return marked

    def _with_characters(self, characters: str, digest: str | None) -> ImageText:
        twin = super().__new__(type(self), characters)
        twin.text, twin.image, twin._digest = self.text, self.image, digest
        return twin

    def __repr__(self) -> str:
        if self.image is None:
            return f"ImageText({self.text!r})"
        return f"ImageText({self.text!r}, image={describe_source(self.image)})"


def _restore(
    cls: type[ImageText], text: str, image: ImageSource | None, digest: str | None, with_digest: str | None
) -> ImageText:
    restored = cls(text, image, digest=digest)
    if with_digest is not None:
        restored = restored._with_characters(with_digest, digest)
        restored._shows_digest = True
    return restored


def recover_image(text: str) -> str:
    """Return an :class:`ImageText` for a plain string with a reference to one, else the string itself.

    Raises:
        ValueError: there are references to several pictures, or the one referred to is gone.
    """
    if getattr(text, "image", None) is not None or not (references := find_references(text)):
        return text
    if len(references) > 1:
        raise ValueError(f"a query has one picture: got references to {len(references)} in {text[:200]!r}")
    carrier = carrier_of(references[0])
    if carrier is None:
        raise ValueError(
            f"the picture of this query is gone: {text[:200]!r} was copied from an ImageText that no longer "
            "exists. Keep the ImageText until the query is answered, or pass an ImageTextQuery."
        )
    return ImageText(text.replace(references[0], "").strip(), carrier.image, digest=carrier._digest)


def words_of(text: str) -> str:
    """Return the words of a string, without its picture and without the reference to it."""
    text = recover_image(text)
    return text.text if isinstance(text, ImageText) else text


def text_with_digest(text: str) -> str:
    """Return a plain text under a string that caches do not take for a picture's: nearly always itself."""
    return ImageText(text).with_digest() if _ENDS_IN_TAG.search(text) else text


_WITH_DIGEST: WeakValueDictionary[str, ImageText] = WeakValueDictionary()
"""Characters that name a picture, of strings that carry it and still exist."""


def has_lost_image(text: str) -> bool:
    """Tell whether a plain string names a picture that it no longer carries.

    That happens when a text splitter or another class copies the text and metadata of one of
    our nodes into a node of its own: embedding the string would be embedding something else.

    A string is all there is to tell by. So ``image_digest: sha256:…`` outside of brackets, as in metadata,
    counts anywhere. In brackets, as at the end of an :class:`ImageText`, it may be an author's words: there
    the whole string must be that of an ``ImageText`` with a picture which still exists; or the tag is that of
    a picture nobody has read (``[image_digest: unread:…]``). An ``ImageText`` without a picture has lost
    none.
    """
    if isinstance(text, ImageText) or IMAGE_DIGEST_KEY not in text:
        return False
    found = [match.groups() for match in _DIGEST_TAG.finditer(text)]
    if any(not bracket or kind == "unread" for bracket, kind in found):
        return True
    return bool(found) and text in _WITH_DIGEST
