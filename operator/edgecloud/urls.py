"""URLs as they may be shown: user, password and query may be secret, and terminals, logs and statuses are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

SCHEME: Final = r"[A-Za-z][A-Za-z0-9+.-]*"
_CHAIN: Final = re.compile(rf"::(?={SCHEME}(?:://|::))")
"""Between the URLs of a chain; an IPv6 address has no scheme behind its colons."""
_IN_TEXT: Final = re.compile(rf"""{SCHEME}://[^\s"'<>]+""")
_CUT: Final = "..."
_TELLING: Final = 5
"""A value in a query with fewer characters, such as 1 or csv, is none to be kept secret by itself."""
_WORD: Final = 4
"""A password with fewer characters is cut out only where it stands alone."""
_END: Final = re.compile(r"[/?#]")
"""Of what a URL says of user, password and host."""


def public(url: str) -> str:
    """A URL, or each of a chain of them, without what may be secret in it: user, password, signature.

    Raises:
        ValueError: it is none, or its password isn't quoted, so that nobody can say where that ends.
    """
    links = [urlsplit(one) for one in _CHAIN.split(url)]
    if any(map(_unquoted, links)):
        raise ValueError("in a password /, ? and # are written as %2F, %3F and %23")
    return "::".join(urlunsplit((one.scheme, one.netloc.rpartition("@")[2], one.path, "", "")) for one in links)


def _unquoted(one: SplitResult) -> bool:
    """Whether what would be the host is user: and the beginning of a password, for the @ comes only later."""
    host, _, port = one.netloc.rpartition(":")
    is_port = port.endswith("]") or (port.isdigit() and len(port) <= len("65535"))
    return bool(host) and not is_port and "@" not in one.netloc and "@" in f"{one.path}{one.query}{one.fragment}"


def without_secrets(text: str, url: str) -> str:
    """What another library says of a URL, without what may be secret: of this one, and of all that stand in the text.

    A redirection's address has its own signature; and an address may be said in part, or quoted otherwise.
    """
    # This one's first: with a space or a quote in its query, the text doesn't show where it ends.
    for secret, alone in sorted(_secrets(url), key=lambda one: len(one[0]), reverse=True):
        before, after = (r"(?<!\w)", r"(?!\w)") if alone else ("", "")
        text = re.sub(f"{before}{re.escape(secret)}{after}", _CUT, text)
    return _IN_TEXT.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    plain = found[0].rstrip(").,;:]}")
    rest = found[0][len(plain) :]
    if plain.endswith("?"):  # of a query that is cut already
        rest = rest.removeprefix(_CUT)
    try:
        return public(plain) + rest
    except ValueError:
        return f"{plain.partition('://')[0]}://{_CUT}"


def _secrets(url: str) -> Iterator[tuple[str, bool]]:
    """What is to be cut out, and whether only where it stands alone: a user, and what may be a word of the sentence.

    By hand, for what is no URL has secrets as well; as they are written, and as they may be quoted.
    """
    for one in _CHAIN.split(url):
        user, password, query = _parts(one)
        if user and not _is_shown(user, url):
            yield from ((form, True) for form in _forms(user))
        pairs = query.split("&")
        values = (pair.partition("=")[2] for pair in pairs)
        for secret in (
            password,
            *_END.split(password),
            query,
            *pairs,
            *(one for one in values if len(one) >= _TELLING),
        ):
            yield from ((form, len(form) < _WORD or form.isalpha()) for form in _forms(secret))


def _parts(url: str) -> tuple[str, str, str]:
    """User, password and query; each may be empty."""
    rest = url.partition("://")[2]
    try:
        unquoted = _unquoted(urlsplit(url))
    except ValueError:
        unquoted = False
    if unquoted:
        before, _, rest = rest.rpartition("@")
    else:
        before = _END.split(rest)[0].rpartition("@")[0]
    user, _, password = before.partition(":")
    return user, password, rest.partition("#")[0].partition("?")[2]


def _is_shown(user: str, url: str) -> bool:
    """Whether a user is called as a word of the URL that is no secret, such as its host's."""
    try:
        return re.search(rf"(?<!\w){re.escape(user)}(?!\w)", public(url).partition("://")[2]) is not None
    except ValueError:
        return False


def _forms(secret: str) -> set[str]:
    plain = unquote(secret)
    return {form for form in (secret, plain, quote(plain), quote(plain, safe="")) if form}
