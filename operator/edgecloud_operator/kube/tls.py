"""The coordinator's TLS: what it serves with, and what workers trust. Kept in a Secret by the operator, or in a folder
by somebody else, such as cert-manager."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import ssl
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from edgecloud_operator.kube.certificates import (
    CertificateError,
    Pair,
    Trust,
    check_bundle,
    issue,
    read_trust,
    renewal_due,
    turned,
    written,
)
from edgecloud_operator.kube.client import AlreadyExistsError, ChangedError, Client, Method, NotFoundError, path

log = logging.getLogger(__name__)

ATTEMPTS: Final = 5
"""How often a Secret that others change at the same time is read anew."""
REFUSED: Final = (
    "workers refuse the coordinator's certificate, tls.crt in %s: %s. Put one there that is valid now, made out to %s%s"
)
LABELS: Final = {"app.kubernetes.io/name": "edgecloud", "app.kubernetes.io/component": "operator"}


class Tls(Protocol):
    """Where certificates come from."""

    @property
    def context(self) -> ssl.SSLContext:
        """What the server serves with; the same object for ever, whatever it has loaded. After the first renew."""

    @property
    def bundle(self) -> str:
        """Certificates for workers to trust, as PEM; empty: those that their images trust anyway."""

    async def renew(self) -> None:
        """Make or read anew what is due.

        Raises:
            ApiError: the API server could not be asked.
            CertificateError: what there is cannot be used; the message says what to do.
        """


def server_context() -> ssl.SSLContext:
    """A context without a certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0  # launchers keep their connections, and take up no old session
    return context


def load(context: ssl.SSLContext, pair: Pair) -> None:
    """Serve new connections with this certificate.

    Raises:
        CertificateError: it cannot be used.
    """
    # ssl takes files only.
    with tempfile.NamedTemporaryFile(prefix="edgecloud-", suffix=".pem") as file:
        file.write((pair.certificate + pair.key).encode())
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except (ssl.SSLError, OSError) as error:
            raise CertificateError(f"the certificate and its key cannot be used: {error}") from None


def objection(context: ssl.SSLContext, certificate: str, bundle: str, host: str) -> str:
    """What a worker that trusts the bundle says against the certificate that is served, in OpenSSL's words; empty: it
    is content, or nobody can tell here. Whom images trust isn't known: without a bundle only name and time count."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        trusting = ssl.create_default_context(cadata=bundle or certificate)
        if not bundle:
            trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        worker = trusting.wrap_bio(to_client, to_server, server_hostname=host)
    except ValueError:  # ssl.SSLError is one
        return ""
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (worker, server, worker):  # two halves of a handshake; the server's second is of no interest
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        except ssl.SSLError as error:
            return str(error)
    return ""


class SecretTls:
    """An authority of the operator's own, in a Secret that every replica reads and whoever leads writes."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        host: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """host: what workers call the coordinator."""
        self._client = client
        self._place = (namespace, name)
        self._host = host
        self._now = now
        self._context = server_context()
        self._trust: Trust | None = None
        self._signed_by = ""
        self._leaf = ""

    @property
    def context(self) -> ssl.SSLContext:
        return self._context

    @property
    def bundle(self) -> str:
        return self._trust.bundle if self._trust else ""

    async def renew(self) -> None:
        self._trust = await self._agree()
        now, signing = self._now(), self._trust.signing
        if self._signed_by != signing.certificate or renewal_due(self._leaf, now):
            leaf = issue(signing, self._host, now)
            load(self._context, leaf)
            self._leaf, self._signed_by = leaf.certificate, signing.certificate
            log.info("the coordinator has a new certificate for %s", self._host)

    async def _agree(self) -> Trust:
        """The trust that stands in the Secret, after what is due has been written there."""
        for _ in range(ATTEMPTS):
            try:
                found = await self._client.request("GET", path("Secret", *self._place))
            except NotFoundError:
                # One that was lost is put back: running workers trust it.
                made = turned(self._trust, self._now())
                if await self._write("POST", made, None):
                    self._trust = made  # even if it is lost again before it is read
                    log.info("the certificate authority is in Secret %s/%s", *self._place)
                continue
            trust = self._read(found)
            due = turned(trust, self._now())
            if due == trust:
                return due
            log.info("the certificate authority in Secret %s/%s takes its next step", *self._place)
            await self._write("PUT", due, found)
        raise CertificateError(f"Secret {'/'.join(self._place)} keeps changing")

    def _read(self, found: dict[str, Any]) -> Trust | None:
        data = found.get("data")
        if not data:
            return None  # somebody made it for us to fill
        try:
            texts = {key: base64.b64decode(value).decode() for key, value in data.items()}
            return read_trust(texts)
        except (CertificateError, binascii.Error, ValueError, TypeError, AttributeError) as error:
            raise CertificateError(
                f"Secret {'/'.join(self._place)} holds no certificate authority of ours ({error}): delete it, and a new"
                " one is made"
            ) from None

    async def _write(self, method: Method, trust: Trust, found: dict[str, Any] | None) -> bool:
        namespace, name = self._place
        metadata: dict[str, Any] = {"name": name, "namespace": namespace, "labels": dict(LABELS)}
        if found is not None:
            metadata = {**found["metadata"]}
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": (found or {}).get("type") or "Opaque",
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in written(trust).items()},
        }
        try:
            await self._client.request(method, path("Secret", namespace, None if method == "POST" else name), body=body)
        except (AlreadyExistsError, ChangedError, NotFoundError):
            return False
        return True


class FolderTls:
    """Certificates that somebody else keeps in a folder: tls.crt, tls.key, and ca.crt for workers to trust.

    What workers would refuse is served none the less, for want of a better one, and said.
    """

    def __init__(self, folder: Path, host: str) -> None:
        """host: what workers call the coordinator."""
        self._folder = folder
        self._host = host
        self._objection = ""
        self._context = server_context()
        self._loaded: tuple[str, ...] = ()

    @property
    def context(self) -> ssl.SSLContext:
        return self._context

    @property
    def bundle(self) -> str:
        return self._loaded[2] if self._loaded else ""

    async def renew(self) -> None:
        found = await asyncio.to_thread(self._files)
        if found != self._loaded:
            bundle = check_bundle(found[2]) if found[2] else ""
            load(self._context, Pair(found[0] + "\n", found[1]))
            self._loaded = (found[0], found[1], bundle)
            self._objection = ""
            log.info("the coordinator has a new certificate from %s", self._folder)
        self._look()

    def _look(self) -> None:
        """Say once what workers have against a certificate: from the first, or once its time is over."""
        certificate, _, bundle = self._loaded
        said = objection(self._context, certificate, bundle, self._host)
        if said and said != self._objection:
            log.error(REFUSED, self._folder, said, self._host, " and signed by what ca.crt holds" if bundle else "")
        self._objection = said

    def _files(self) -> tuple[str, str, str]:
        try:
            certificate, key = ((self._folder / name).read_text() for name in ("tls.crt", "tls.key"))
            authority = self._folder / "ca.crt"
            return certificate, key, authority.read_text() if authority.exists() else ""
        except (OSError, ValueError) as error:
            raise CertificateError(f"the certificates in {self._folder} cannot be read: {error}") from None
