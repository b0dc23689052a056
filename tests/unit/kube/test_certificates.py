"""The coordinator's authority: every worker trusts what signs, at every moment of a hand-over."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecloud_operator.kube.certificates import (
    ANNOUNCED_FOR,
    AUTHORITY_LIFE,
    BACKDATED,
    CertificateError,
    Pair,
    Trust,
    begins,
    check_bundle,
    ends,
    issue,
    make_authority,
    read_trust,
    renewal_due,
    turned,
    written,
)
from edgecloud_operator.kube.tls import FolderTls, load, server_context

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)


def handshake(leaf: Pair, bundle: str, host: str) -> str:
    """What a client that trusts the bundle says of a server with that certificate; empty: it is content."""
    context = server_context()
    load(context, leaf)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            with context.wrap_socket(theirs, server_side=True) as secured:
                secured.recv(1)
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with ssl.create_default_context(cadata=bundle).wrap_socket(ours, server_hostname=host) as secured:
            secured.send(b"x")
        return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    finally:
        ours.close()
        thread.join(10)


@pytest.mark.parametrize("host", ["edgecloud-coordinator.team.svc", "127.0.0.1", "::1"])
def test_a_worker_knows_its_coordinator(host: str) -> None:
    authority = make_authority(NOW)
    leaf = issue(authority, host, NOW)
    assert handshake(leaf, authority.certificate, host) == ""
    assert "unable to get local issuer" in handshake(leaf, make_authority(NOW).certificate, host)
    assert "mismatch" in handshake(leaf, authority.certificate, "another.svc")


def test_an_old_certificate_is_not_taken() -> None:
    authority = make_authority(NOW)
    assert "expired" in handshake(issue(authority, "a", NOW - 31 * DAY), authority.certificate, "a")


def test_a_certificate_does_not_outlive_its_authority() -> None:
    authority = make_authority(NOW)
    late = ends(authority.certificate) - DAY
    assert ends(issue(authority, "a", late).certificate) == ends(authority.certificate)


def test_a_certificate_signs_no_others() -> None:
    leaf = issue(make_authority(NOW), "a", NOW)
    with pytest.raises(CertificateError):
        issue(leaf, "b", NOW)


def test_when_a_certificate_is_renewed() -> None:
    leaf = issue(make_authority(NOW), "a", NOW).certificate
    assert not renewal_due(leaf, NOW + 19 * DAY)
    assert renewal_due(leaf, NOW + 21 * DAY)


def test_a_life_in_full() -> None:
    """Day by day for seven years: announced, signing, former, gone."""
    trust, seen = turned(None, NOW), []
    for day in range(7 * 365):
        after = turned(trust, NOW + day * DAY)
        if after != trust:
            kept = "same" if after.signing == trust.signing else "next"
            seen.append((kept, after.following is not None, bool(after.former)))
            assert kept == "same" or after.signing == trust.following
        trust = after
    assert seen[:5] == [
        ("same", True, False),
        ("next", False, True),
        ("same", False, False),
        ("same", True, False),
        ("next", False, True),
    ]


# Made once: keys take a while.
_AUTHORITIES = [make_authority(NOW + days * DAY) for days in (-800, -600, -300, -2, 0, 200)]


@given(
    st.sampled_from(_AUTHORITIES),
    st.none() | st.sampled_from(_AUTHORITIES),
    st.sampled_from(["", *(one.certificate for one in _AUTHORITIES)]),
    st.integers(-100, 2000),
)
def test_no_step_leaves_a_worker_behind(signing: Pair, following: Pair | None, former: str, days: int) -> None:
    trust, now = Trust(signing=signing, following=following, former=former), NOW + days * DAY
    after = turned(trust, now)
    assert ends(after.signing.certificate) > now
    assert after.signing.certificate in after.bundle
    if ends(signing.certificate) > now:  # what signs now was trusted before, and what signed is still trusted
        assert after.signing.certificate in trust.bundle
        assert signing.certificate in after.bundle
    if after.signing == following and following != signing and ends(signing.certificate) > now:
        assert begins(following.certificate) + BACKDATED + ANNOUNCED_FOR <= now
    for _ in range(6):  # it comes to rest
        after = turned(after, now)
    assert turned(after, now) == after
    assert read_trust(written(after)) == after
    assert len(check_bundle(after.bundle)) < 4096


def test_what_is_no_authority() -> None:
    good, other = make_authority(NOW), make_authority(NOW)
    leaf = issue(good, "a", NOW)
    data = written(Trust(signing=good))
    for broken in (
        {},
        {"ca.crt": good.certificate},
        {"ca.crt": "", "ca.key": good.key},
        {"ca.crt": good.certificate, "ca.key": other.key},
        {"ca.crt": good.certificate, "ca.key": "x"},
        {"ca.crt": leaf.certificate, "ca.key": leaf.key},
        {"ca.crt": "x" * 10**6, "ca.key": good.key},
        data | {"next.crt": other.certificate},
        data | {"next.crt": other.certificate, "next.key": good.key},
        data | {"previous.crt": "x"},
    ):
        with pytest.raises(CertificateError):
            read_trust(broken)
    assert read_trust(data | {"something": "else"}).signing == good
    for broken_bundle in ("", "x", good.key, good.certificate * 200):
        with pytest.raises(CertificateError):
            check_bundle(broken_bundle)
    assert AUTHORITY_LIFE > 10 * ANNOUNCED_FOR


def test_a_folder_of_somebody_elses(tmp_path: Path) -> None:
    tls = FolderTls(tmp_path, "a")
    with pytest.raises(CertificateError, match="cannot be read"):
        asyncio.run(tls.renew())
    authority = make_authority(NOW)
    leaf = issue(authority, "a", NOW)
    (tmp_path / "tls.crt").write_text(leaf.certificate)
    (tmp_path / "tls.key").write_text(leaf.key)
    asyncio.run(tls.renew())
    assert tls.bundle == ""  # a public authority's: images trust it
    (tmp_path / "ca.crt").write_text(authority.certificate)
    context = tls.context
    asyncio.run(tls.renew())
    assert tls.bundle == authority.certificate
    assert tls.context is context
    (tmp_path / "tls.key").write_text(make_authority(NOW).key)
    with pytest.raises(CertificateError, match="cannot be used"):
        asyncio.run(tls.renew())
    assert tls.bundle == authority.certificate


@pytest.mark.parametrize(
    ("host", "made", "signed", "said"),
    [
        ("a.svc", NOW, True, None),
        ("a.svc", NOW, None, None),
        ("a.svc", NOW - 31 * DAY, True, "certificate has expired"),
        ("a.svc", NOW - 31 * DAY, None, "certificate has expired"),
        ("a.svc", NOW + DAY, True, "certificate is not yet valid"),
        ("b.svc", NOW, True, "not valid for 'b.svc'"),
        ("b.svc", NOW, None, "not valid for 'b.svc'"),
        ("10.0.0.1", NOW, True, "IP address mismatch"),
        ("a.svc", NOW, False, "unable to get local issuer certificate"),
    ],
)
def test_what_workers_refuse_is_served_and_said_once(
    host: str, made: datetime, signed: bool | None, said: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """signed: whether ca.crt holds who signed it; None: there is no ca.crt."""
    authority = make_authority(NOW - 60 * DAY)
    leaf = issue(authority, "a.svc", made)
    files = {"tls.crt": leaf.certificate, "tls.key": leaf.key}
    if signed is not None:
        files["ca.crt"] = (authority if signed else make_authority(NOW)).certificate
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    tls = FolderTls(tmp_path, host)
    for _ in range(3):
        asyncio.run(tls.renew())
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == (said is not None)
    assert (said or "") in "".join(errors)
    assert tls.bundle == files.get("ca.crt", "")
