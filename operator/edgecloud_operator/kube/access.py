"""How the API server is reached: its address and credentials, for our own requests and for kopf's."""

from __future__ import annotations

import os
import ssl
from typing import Final

import kopf
import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

CONNECTIONS: Final = 64
"""Requests under way at the same time."""


class AccessError(Exception):
    """There is no way to the API server; the message says what was looked for."""


async def load_access() -> Configuration:
    """The file that $KUBECONFIG names, else the Pod's ServiceAccount, else ~/.kube/config.

    Raises:
        AccessError: none of them is there, or it cannot be read.
    """
    configuration = Configuration()
    # Proxies and netrc are for the outside world; a cluster's API server is reached directly, or as its config says.
    configuration.client_session_kwargs = {"trust_env": False}
    configuration.connection_pool_maxsize = CONNECTIONS
    named = os.environ.get("KUBECONFIG")
    file = named or "~/.kube/config"
    in_pod = not named and "KUBERNETES_SERVICE_HOST" in os.environ
    try:
        if in_pod:
            load_incluster_config(client_configuration=configuration)
        else:
            await load_kube_config(file, client_configuration=configuration, persist_config=False)
        _try_certificates(configuration)
    except Exception as error:  # the library goes by what a file should hold, and fails of what it does hold
        where = "the Pod's ServiceAccount" if in_pod else file
        raise AccessError(f"no access to an API server: {where}: {_said(error)}") from error
    return configuration


def _said(error: Exception) -> str:
    """What is wrong with a file, in one line."""
    words = " ".join(str(error).split())
    if isinstance(error, yaml.YAMLError):
        return f"this is no YAML: {words}"
    if isinstance(error, ssl.SSLError):
        return f"a certificate or key that it gives is none: {words}"
    return words if isinstance(error, ConfigException | OSError | ValueError) else f"this is no kubeconfig: {words}"


def _try_certificates(configuration: Configuration) -> None:
    """Read them as a client will, which could not say whose they are."""
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert or None)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file or None)


async def bearer_token(configuration: Configuration) -> str:
    """The token of the moment, without the word before it; empty where a client certificate is used."""
    value = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or ""
    scheme, _, token = value.partition(" ")
    return (token if scheme.lower() == "bearer" else value).strip()


async def kopf_login(configuration: Configuration) -> kopf.ConnectionInfo:
    """The same access, as kopf takes it."""
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert or None,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file or None,
        private_key_path=configuration.key_file or None,
        scheme="Bearer",
        token=await bearer_token(configuration) or None,
        proxy_url=configuration.proxy or None,
        trust_env=False,
    )
