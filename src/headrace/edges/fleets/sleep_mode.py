"""A replica that stands by asleep: its engine is asked to sleep, and woken when it is wanted.

    asleep   every call to put it to sleep was answered by 200, and then it says that it sleeps
    awake    every call to wake it was answered by 200, and then it says that it does not

All of that within `timeout_s`; what is not done by then has failed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from headrace.edges.http import fetch
from headrace.engines.sleep_mode import Post, SleepMode, is_sleeping

_LOOK_S = 0.05
"""An engine that says it is not there yet is asked again so soon."""
_MAX_ANSWER_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SleepSettings:
    """How engines that stand by sleep."""

    level: int = field(default=1, metadata={"minimum": 1, "maximum": 2})
    """1: weights wait in the host's memory, and wake fast. 2: they are read again from where they
    were loaded, which takes no host memory and longer."""
    timeout_s: float = field(default=60.0, metadata={"above": 0})
    """For an engine to fall asleep, and to wake; one that does not wake is ended."""


class SleepError(Exception):
    """An engine did not do as it was asked. The message says what it did."""


class SleepRefusedError(SleepError):
    """It has no sleep mode as it was started, so that it is as awake as before."""


class Sleeper(Protocol):
    """Puts the engine at an address to sleep and wakes it. Both raise `SleepError`."""

    async def sleep(self, url: str) -> None:
        """Return when it sleeps. Raises `SleepRefusedError` if it cannot and did not begin to."""
        ...

    async def wake(self, url: str) -> None:
        """Return when it answers requests again."""
        ...


class EngineSleep:
    """The sleep mode of one kind of engine, by HTTP."""

    def __init__(self, mode: SleepMode, settings: SleepSettings) -> None:
        self._mode = mode
        self._settings = settings

    async def sleep(self, url: str) -> None:
        """See `Sleeper.sleep`."""
        await self._within(url, self._mode.to_sleep[self._settings.level], asleep=True)

    async def wake(self, url: str) -> None:
        """See `Sleeper.wake`."""
        await self._within(url, self._mode.to_wake[self._settings.level], asleep=False)

    async def _within(self, url: str, posts: tuple[Post, ...], *, asleep: bool) -> None:
        timeout_s = self._settings.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                for number, post in enumerate(posts):
                    # Whoever has taken one call is not as it was, whatever it says to the next.
                    await self._ask(b"POST", url, post.path, post.body, first=number == 0)
                while await self._is_sleeping(url) is not asleep:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            wanted = "fall asleep" if asleep else "wake"
            raise SleepError(f"did not {wanted} within {timeout_s:g} s") from None

    async def _is_sleeping(self, url: str) -> bool:
        path = self._mode.state_path
        body = await self._ask(b"GET", url, path)
        try:
            return is_sleeping(body)
        except ValueError as error:
            raise SleepError(f"answers {path} with something else: {error}") from None

    async def _ask(
        self, method: bytes, url: str, path: str, body: bytes = b"", *, first: bool = False
    ) -> bytes:
        json = [(b"content-type", b"application/json")] if body else []
        try:
            answer = await fetch.request(
                method,
                url + path,
                body,
                timeout_s=2.0 * self._settings.timeout_s,  # the limit on all of them comes first
                headers=json,
                max_bytes=_MAX_ANSWER_BYTES,
            )
        except fetch.FetchError as error:
            raise SleepError(f"{path.partition('?')[0]}: {error}") from None
        if answer.status in {404, 405}:
            refused = SleepRefusedError if first else SleepError
            needs = self._mode.needs
            raise refused(f"answers {answer.status} to {path}; start it with {needs}")
        if answer.status != 200:
            raise SleepError(f"answers {answer.status} to {path}")
        return answer.body
