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


def test_what_is_said_of_what_is_none() -> None:
    assert without_secrets("netloc 'bob:hunter2@[a' is bad", "http://bob:hunter2@[a/b") == "netloc '...:...@[a' is bad"
