"""A certificate authority of the operator's own, and when it hands over to the next. Pure but for randomness.

Workers trust what stands in their Pods: the authority that signs now, the one that will sign next, and the one before.
An authority is announced long before it signs, so that every worker knows it by then.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE: Final = timedelta(days=730)
FOLLOW_BEFORE: Final = AUTHORITY_LIFE / 3
"""How long before its end an authority's follower is announced."""
ANNOUNCED_FOR: Final = timedelta(days=1)
"""How long a follower is announced before it signs: Pods learn of it within minutes of an operator that is there."""
LEAF_LIFE: Final = timedelta(days=30)
LEAF_RENEWED: Final = timedelta(days=10)
"""How long before its end the coordinator's own certificate is made anew."""
BACKDATED: Final = timedelta(minutes=10)
"""How far another machine's clock may be behind."""
MAX_PEM: Final = 16_384


class CertificateError(Exception):
    """This is no certificate authority; the message says what is wrong with it."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM."""

    certificate: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The authority that signs, the one announced to follow it, and the certificate of the one before."""

    signing: Pair
    following: Pair | None = None
    former: str = ""

    @property
    def bundle(self) -> str:
        """The certificates that workers should trust, as PEM."""
        following = self.following.certificate if self.following else ""
        return "".join(one for one in (self.signing.certificate, following, self.former) if one)


def turned(trust: Trust | None, now: datetime) -> Trust:
    """What the trust should be now. The same, most of the time; never more than one step in a day of steps."""
    if trust is None or ends(trust.signing.certificate) <= now:
        # Nothing is left that a worker could go on with: those that run are told of the new one.
        return Trust(signing=make_authority(now))
    if trust.former and ends(trust.former) <= now:
        return replace(trust, former="")
    if trust.following is not None and ends(trust.following.certificate) <= now:
        return replace(trust, following=None)
    if trust.following is not None and begins(trust.following.certificate) + BACKDATED + ANNOUNCED_FOR <= now:
        return Trust(signing=trust.following, former=trust.signing.certificate)
    if trust.following is None and ends(trust.signing.certificate) - FOLLOW_BEFORE <= now:
        return replace(trust, following=make_authority(now))
    return trust


def make_authority(now: datetime) -> Pair:
    """A new authority, valid from now on."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Authorities of the same name could be taken for each other while both are trusted.
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"EdgeCloud coordinator {x509.random_serial_number():x}"[:64])]
    )
    certificate = (
        _begun(name, name, key, now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(certificate, key)


def issue(authority: Pair, host: str, now: datetime) -> Pair:
    """A certificate for a server of that name, or IP address.

    Raises:
        CertificateError: the authority is none.
    """
    issuer, signer = _loaded(authority)
    key = ec.generate_private_key(ec.SECP256R1())
    try:
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(host))]
    except ValueError:
        names = [x509.DNSName(host)]
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edgecloud-coordinator")])
    life = min(LEAF_LIFE, issuer.not_valid_after_utc - now)
    certificate = (
        _begun(name, issuer.subject, key, now, life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    return _pair(certificate, key)


def renewal_due(leaf: str, now: datetime) -> bool:
    """Whether a server's certificate should be made anew."""
    return ends(leaf) - LEAF_RENEWED <= now


def begins(certificate: str) -> datetime:
    return _certificate(certificate).not_valid_before_utc


def ends(certificate: str) -> datetime:
    return _certificate(certificate).not_valid_after_utc


def read_trust(data: Mapping[str, str]) -> Trust:
    """The trust that a Secret holds.

    Raises:
        CertificateError: it holds none, or one that is broken.
    """
    try:
        signing = Pair(data["ca.crt"], data["ca.key"])
    except KeyError as error:
        raise CertificateError(f"there is no {error.args[0]}") from None
    _loaded(signing)
    following = None
    if data.get("next.crt"):
        following = Pair(data["next.crt"], data.get("next.key", ""))
        _loaded(following)
    former = data.get("previous.crt", "")
    if former:
        _certificate(former)
    return Trust(signing=signing, following=following, former=former)


def written(trust: Trust) -> dict[str, str]:
    """What a Secret holds of it."""
    data = {"ca.crt": trust.signing.certificate, "ca.key": trust.signing.key}
    if trust.following:
        data |= {"next.crt": trust.following.certificate, "next.key": trust.following.key}
    return data | ({"previous.crt": trust.former} if trust.former else {})


def check_bundle(pem: str) -> str:
    """The text, if it is a bundle of certificates that fits into an annotation.

    Raises:
        CertificateError: it is none, or too long.
    """
    if len(pem) > 4 * MAX_PEM:
        raise CertificateError("it is longer than a bundle of certificates should be")
    try:
        x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise CertificateError(f"it holds no certificates: {error}") from None
    return pem


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    now = now.astimezone(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Pair(certificate.public_bytes(Encoding.PEM).decode(), private.decode())


def _certificate(pem: str) -> x509.Certificate:
    if len(pem) > MAX_PEM:
        raise CertificateError("a certificate is too long")
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"no certificate: {error}") from None


def _loaded(pair: Pair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """An authority, checked: its key is its certificate's."""
    certificate = _certificate(pair.certificate)
    try:
        key = load_pem_private_key(pair.key.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"no private key: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CertificateError("the private key is not the certificate's")
    try:
        certificate.verify_directly_issued_by(certificate)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise CertificateError(f"no authority: {error or type(error).__name__}") from None
    if not constraints.ca:
        raise CertificateError("the certificate is not an authority's")
    return certificate, key
