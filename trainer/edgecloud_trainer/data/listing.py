"""A web server's listing of a folder, as an HTML page: what its links lead to, and what it says beside them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Final
from urllib.parse import urljoin

from edgecloud_trainer.data.dataset import DataError

PIECE: Final = 64 * 1024
"""Bytes of a page that are parsed at once."""
MAX_BYTES: Final = 512 * 1024**2
"""Of a page."""
_MAX_HELD: Final = 2 * PIECE
"""Characters that the parser may keep because a tag doesn't end: it looks at them again with each piece."""
_MAX_BESIDE: Final = 200
_TIME: Final = re.compile(r"\b\d{1,2}:\d{2}\b")
_ROW_ENDS: Final = frozenset(("tr", "li", "pre", "table", "ul", "body"))


def links(pieces: Iterable[bytes], folder: str, where: str) -> dict[str, str]:
    """What a page links to.

    Args:
        pieces: the page.
        folder: its URL.
        where: what messages call it.

    Returns:
        By URL, without the part behind #: what stands behind the link and tells a time, such as that of the last
        change, and often a size; else "".

    Raises:
        DataError: it is too large, or no listing.
    """
    page, decoder, size = _Page(folder), codecs.getincrementaldecoder("utf-8")("replace"), 0
    for piece in pieces:
        size += len(piece)
        page.feed(decoder.decode(piece))
        if size > MAX_BYTES or len(page.rawdata) > _MAX_HELD:
            raise DataError(f"the listing of {where} is too large, or isn't one: pack the images as a tar file")
    page.feed(decoder.decode(b"", final=True))
    page.close()
    return {url: beside if _TIME.search(beside) else "" for url, beside in page.found.items()}


class _Page(HTMLParser):
    def __init__(self, folder: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._folder = folder
        self._row = ""
        """The URL that text belongs to; "" if none."""
        self._in_link = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._in_link, self._row = True, self._target(dict(attrs).get("href") or "")
            if self._row:
                self.found.setdefault(self._row, "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._in_link = False
        elif tag in _ROW_ENDS:
            self._row = ""

    def handle_data(self, data: str) -> None:
        if self._row and not self._in_link and len(self.found[self._row]) < _MAX_BESIDE and (said := data.split()):
            self.found[self._row] = " ".join([*self.found[self._row].split(), *said])[:_MAX_BESIDE]

    def _target(self, link: str) -> str:
        try:
            return urljoin(self._folder, link.strip()).partition("#")[0]
        except ValueError:
            return ""
