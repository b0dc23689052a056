"""URLs as they may be shown: user, password and query may be secret, and terminals, logs and statuses are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]*"
_CHAIN: Final = re.compile(rf"::(?={SCHEME}(?:://|::))")
"""Between the URLs of a chain; an IPv6 address has no scheme behind its colons."""
_IN_TEXT: Final = re.compile(rf"""{SCHEME}://[^\s"'<>]+""")
_CUT: Final = "..."
_TELLING: Final = 5
"""A value in a query with fewer characters, such as 1 or csv, is none to be kept secret by itself."""
_WORD: Final = 4
"""A user or password with fewer characters is cut out only where it stands alone."""


def public(url: str) -> str:
    """A URL, or each of a chain of them, without what may be secret in it: user, password, signature.

    Raises:
        ValueError: it is none.
    """
    links = map(urlsplit, _CHAIN.split(url))
    return "::".join(urlunsplit((one.scheme, one.netloc.rpartition("@")[2], one.path, "", "")) for one in links)


def without_secrets(text: str, url: str) -> str:
    """What another library says of a URL, without what may be secret: of this one, and of all that stand in the text.

    A redirection's address has its own signature; and an address may be said in part, or quoted otherwise.
    """
    text = _IN_TEXT.sub(_shown, text)
    for secret in sorted(_secrets(url), key=len, reverse=True):
        alone = (r"(?<!\w)", r"(?!\w)") if len(secret) < _WORD else ("", "")
        text = re.sub(re.escape(secret).join(alone), _CUT, text)
    return text


def _shown(found: re.Match[str]) -> str:
    plain = found[0].rstrip(").,;:]}")
    try:
        return public(plain) + found[0][len(plain) :]
    except ValueError:
        return f"{plain.partition('://')[0]}://{_CUT}"


def _secrets(url: str) -> Iterator[str]:
    """By hand, for what is no URL has secrets as well; as they are written, and as they may be quoted."""
    for one in _CHAIN.split(url):
        before, _, query = one.partition("://")[2].partition("#")[0].partition("?")
        user, _, password = before.partition("/")[0].rpartition("@")[0].partition(":")
        values = (pair.partition("=")[2] for pair in query.split("&"))
        for secret in (user, password, query, *query.split("&"), *(one for one in values if len(one) >= _TELLING)):
            plain = unquote(secret)
            yield from {form for form in (secret, plain, quote(plain), quote(plain, safe="")) if form}
