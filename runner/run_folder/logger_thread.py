"""A thread that makes the calls of one logger, so that neither its slowness nor its errors cost the run anything."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

log = logging.getLogger("dcrun")


class LoggerThread:
    """Makes calls one after the other, in the order in which they were asked for.

    The run folder has the metrics anyway, and a logger must not cost hours of training: of its first error one line
    tells, and its later calls are left out.

    Args:
        name: what the line calls the logger.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._failed = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=name)

    def call(self, action: Callable[[], object]) -> None:
        """Ask for a call; do not wait for it."""
        self._worker.submit(self._try, action)

    def finish(self) -> None:
        """Wait for the last call."""
        self._worker.shutdown()

    def _try(self, action: Callable[[], object]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 (the loggers' errors have no common base)
            self._failed = True
            log.warning("%s failed (%s: %s); the run goes on without it", self._name, type(error).__name__, error)
