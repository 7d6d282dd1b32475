"""Where stored responses live: only the replica that made one can show, continue or delete it."""

from __future__ import annotations

from collections import OrderedDict


class StoredResponses:
    """Response ids and their holders, the oldest forgotten first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._holders: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def remember(self, response_id: str, replica: str, model: str) -> None:
        """Take note of a response that may be stored."""
        self._holders[response_id] = (replica, model)
        while len(self._holders) > self.limit:
            self._holders.popitem(last=False)

    def holder_of(self, response_id: str) -> tuple[str, str] | None:
        """Return (replica, model), None if the response is not known."""
        return self._holders.get(response_id)
