"""The parts of a sharded deployment, as a gateway sees them: each has replicas, which may die."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any, TypeVar

from ray.exceptions import ObjectLostError, RayActorError, TaskCancelledError
from ray.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from serve.calls import OtherPartError, this_call
from serve.errors import UnavailableError
from serve.metrics import Load

Result = TypeVar("Result")

logger = logging.getLogger("ray.serve")

LOST = (RayActorError, ReplicaUnavailableError, ObjectLostError)
"""Raised by a call whose replica died, or its node."""
MAX_TRIES = 2
"""Of a call: one that was under way in a dead replica is repeated once."""
LOOK_S = 1.0
"""Between two looks at the replicas of a part."""
LOOK_TIMEOUT_S = 10.0
"""For their answers; later ones change nothing."""


async def together(*work: Awaitable[Result]) -> list[Result]:
    """The results of all; with the first error, or where nobody waits any more, the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class Part:
    """A part of the deployment, as a gateway sees it: replicas of which one is asked.

    It looks at them once a second. Without a replica a call fails at once, where Serve would have it wait for one.
    """

    def __init__(self, name: str, handle: DeploymentHandle[Any], *, holds: str) -> None:
        self.name = name
        self.holds = holds
        self.num_up: int | None = None
        """Replicas that answered the latest look; None before the first."""
        self.loads: list[Load] = []
        self._handle = handle
        self._under_way: set[Any] = set()

    async def call(self, method: str, *args: Any) -> Any:
        """What a replica answers.

        Raises:
            UnavailableError: without a replica, or where two died or held something else one after the other.
            ProtclipError, OverloadedError: that the replica gave back.
        """
        for _ in range(MAX_TRIES):
            if self.num_up == 0:
                await self.look()  # one may have come since
            if self.num_up == 0:
                break
            response = getattr(self._handle, method).remote(this_call(self.holds), *args)
            self._under_way.add(response)
            try:
                result = await response
            except DeploymentUnavailableError:
                break
            except TaskCancelledError:
                if self.num_up:  # with the request itself, whose client has gone
                    raise asyncio.CancelledError from None
                continue
            except LOST:
                continue
            except asyncio.CancelledError:
                response.cancel()
                raise
            finally:
                self._under_way.discard(response)
            if isinstance(result, OtherPartError):
                continue
            if isinstance(result, Exception):
                raise result
            return result
        raise UnavailableError(f"{self.name} cannot be reached; ask again later.")

    async def look(self) -> None:
        """Ask all replicas what they have to do."""
        try:
            found = await self._handle.broadcast("load").results_async(timeout_s=LOOK_TIMEOUT_S, return_exceptions=True)
        except DeploymentUnavailableError:
            found = []
        except TimeoutError:
            return
        self.loads = [one for one in found if isinstance(one, Load)]
        self.num_up = len(self.loads)
        if not self.num_up:
            for response in list(self._under_way):  # they would wait for a replica
                response.cancel()

    async def watch(self) -> None:
        """Look again and again. When looks begin to fail that is logged, and when they succeed again."""
        failing = False
        while True:
            try:
                await self.look()
            except Exception:  # such as Serve's controller being away
                if not failing:
                    logger.exception("looks at the replicas of %s fail; what was seen last is taken to hold", self.name)
                failing = True
            else:
                if failing:
                    logger.warning("looks at the replicas of %s succeed again", self.name)
                failing = False
            await asyncio.sleep(LOOK_S)
