"""What a worker of a cluster is, on whatever node it runs."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from ..workers import Failure


class Member:
    """What an actor is: prepares once, then does tasks. Two threads: one works, one tells how far it is."""

    def __init__(self) -> None:
        self._told: Any = None
        self._ready: Any = None

    def begin(self, prepare: Callable[[Any], Any], slot: Any) -> str | Failure:
        """What the preparation said of it."""
        try:
            self._ready = prepare(slot)
        except Exception as error:
            return Failure.of(error)
        about: str = self._ready.about
        return about

    def who(self) -> str:
        """`pid 12 on host`."""
        return f"pid {os.getpid()} on {socket.gethostname()}"

    def do(self, task: Any) -> Any:
        """The result, or a `Failure`."""
        assert self._ready is not None
        self._told = None
        try:
            return self._ready.work(task, self._tell)
        except Exception as error:
            return Failure.of(error)

    def told(self, wait_seconds: float) -> Any:
        """The last that the work told, None before, in so many seconds: who asks is not answered in vain."""
        time.sleep(wait_seconds)
        return self._told

    def _tell(self, value: Any) -> None:
        self._told = value
