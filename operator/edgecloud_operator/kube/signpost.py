"""The label by which the coordinator's Service finds the replica that leads."""

from __future__ import annotations

import logging
from typing import Final

from edgecloud.api.job import GROUP
from edgecloud_operator.kube.client import MERGE_PATCH, Client, NotFoundError, path

log = logging.getLogger(__name__)

LEADER_LABEL: Final = f"{GROUP}/leader"


class Signpost:
    """Points at this Pod, and at no other.

    A predecessor may be stopped, cut off or dying: whoever takes over takes the label from it as well.
    """

    def __init__(self, client: Client, namespace: str, pod: str, selector: str) -> None:
        """selector: the labels of this operator's Pods."""
        self._client = client
        self._namespace = namespace
        self._pod = pod
        self._selector = selector

    async def point(self) -> None:
        """Take the label from the others, and put it on our Pod.

        Raises:
            ApiError: that could not be done, or not wholly.
        """
        await self._label(self._pod, "true")
        others = f"{self._selector},{LEADER_LABEL}=true"
        async for page in self._client.pages("Pod", self._namespace, selector=others):
            for pod in page.items:
                name = str((pod.get("metadata") or {}).get("name") or "")
                if name and name != self._pod:
                    log.info("%s no longer leads", name)
                    await self._label(name, None)

    async def _label(self, pod: str, value: str | None) -> None:
        body = {"metadata": {"labels": {LEADER_LABEL: value}}}
        try:
            await self._client.request("PATCH", path("Pod", self._namespace, pod), body=body, content_type=MERGE_PATCH)
        except NotFoundError:
            if value is not None:
                raise
