"""How the API server is reached: its address and credentials, for our own requests and for kopf's."""

from __future__ import annotations

import os
from typing import Final

import kopf
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
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and not os.environ.get("KUBECONFIG"):
            load_incluster_config(client_configuration=configuration)
        else:
            await load_kube_config(client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError, ValueError) as error:
        raise AccessError(f"no access to an API server: {error}") from error
    return configuration


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
