"""What of a URL may be shown, by itself and within what a library says of it."""

from __future__ import annotations

import pytest

from edgecloud.urls import public, without_secrets

SIGNED = "https://bob:hunter2@host:8/a%20b.tar?X-Sig=aa%2Fbb%2Bcc&n=1"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (SIGNED, "https://host:8/a%20b.tar"),
        ("simplecache::s3://key:secret@bucket/path?token=abc", "simplecache::s3://bucket/path"),
        ("s3://bucket/path", "s3://bucket/path"),
    ],
)
def test_a_url(url: str, shown: str) -> None:
    assert public(url) == shown


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("nothing of it", "nothing of it"),
        (f"0, message='', url='{SIGNED}'", "0, message='', url='https://host:8/a%20b.tar'"),
        ("sent (to https://cdn/x?sig=other), which", "sent (to https://cdn/x), which"),
        ("to http://[cdn/x?sig=other", "to http://..."),
        ("'/a b.tar?X-Sig=aa/bb+cc&n=1' is bad", "'/a b.tar?...' is bad"),
        ("'/a%20b.tar?X-Sig=aa%2Fbb%2Bcc&n=1' is bad", "'/a%20b.tar?...' is bad"),
        ("signature aa/bb+cc of 1 is old", "signature ... of 1 is old"),
        ("530 PASS hunter2: bobby or bob can't log in", "530 PASS ...: bobby or ... can't log in"),
    ],
)
def test_what_is_said_of_a_url(said: str, shown: str) -> None:
    assert without_secrets(said, SIGNED) == shown


@pytest.mark.parametrize("sign", ["#", "?", "/"])
def test_a_password_that_is_not_quoted(sign: str) -> None:
    """A parser takes its beginning for a port, and shows it, or all of it."""
    url = f"https://bob:p{sign}ss12@host/x"
    with pytest.raises(ValueError, match=r"^in a password /, \? and # are written as %2F, %3F and %23$"):
        public(url)
    assert without_secrets(f"can't get {url}", "s3://bucket/x") == "can't get https://..."
    assert (
        without_secrets(f"can't get {url}: no port p of bob:p", url)
        == "can't get https://host/x: no port ... of ...:..."
    )
    for right in (f"https://host:8080{sign}a@2x.png", f"http://[::1]{sign}a@2x.png", f"http://[::1]:80{sign}a@b"):
        assert public(right) == right.partition("?")[0].partition("#")[0]


@pytest.mark.parametrize("secret", ["abc def12", "abc'def12345", "<abc>def"])
def test_a_query_that_is_not_quoted(secret: str) -> None:
    """Where the text went on, as it seemed, the rest of it was shown."""
    url = f"https://host/x?token={secret}"
    assert without_secrets(f"can't get {url}, now", url) == "can't get https://host/x, now"
    assert without_secrets(f"can't get {url.replace('host', 'HOST')}", url) == "can't get https://HOST/x"


@pytest.mark.parametrize(
    ("url", "said", "shown"),
    [
        (
            "https://data:pw12@data.host/data/x",
            "no host data.host:443, /data/x: pw12",
            "no host data.host:443, /data/x: ...",
        ),
        ("ftp://user:pw12@host/x", "530 username, superuser or user can't", "530 username, superuser or ... can't"),
        ("ftp://u:download@host/x", "downloads: can't download", "downloads: can't ..."),
        ("ftp://u:down10ad@host/x", "PASSdown10ad", "PASS..."),
        ("https://host/x?as=archive", "archives of as=archive", "archives of ..."),
    ],
)
def test_what_is_no_secret_is_said(url: str, said: str, shown: str) -> None:
    assert without_secrets(said, url) == shown


def test_what_is_said_of_what_is_none() -> None:
    assert without_secrets("netloc 'bob:hunter2@[a' is bad", "http://bob:hunter2@[a/b") == "netloc '...:...@[a' is bad"
