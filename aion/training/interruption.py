"""Interruption: a request to stop (SIGTERM), heard at the end of a step instead of in the middle of it."""

__all__ = ["Interruption"]

import os
import signal
import threading

GRACE = 20.0  # seconds; torchrun kills 30 s after it has asked


class Interruption:
    """Notes SIGTERM while it is entered.

    A rank that waits for another which has died cannot listen: the handler only runs between two instructions of
    Python. With `watched` a thread ends the process if no sign of life follows the signal, so that no rank hangs.
    Only the main thread of a process can hear signals; in others nothing changes.

    Arguments:
        heard: whether to listen at all.
        watched: whether the process ends if it does not come to look at `wanted` in time.
    """

    def __init__(self, heard: bool = True, watched: bool = False) -> None:
        self._heard = heard and threading.current_thread() is threading.main_thread()
        self._watched = watched
        self._wanted = False
        self._timer: threading.Timer | None = None
        self._calm, self._lock = False, threading.Lock()

    def __enter__(self) -> "Interruption":
        if self._heard:
            self._previous = signal.signal(signal.SIGTERM, self._note)
            if self._watched:
                self._reader, self._writer = os.pipe()
                os.set_blocking(self._writer, False)
                self._earlier = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
                threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.calm()
        if self._heard:
            signal.signal(signal.SIGTERM, self._previous)
            if self._watched:
                signal.set_wakeup_fd(self._earlier)
                os.close(self._writer)

    @property
    def wanted(self) -> bool:
        """Tells whether to stop; asking is a sign of life."""
        if self._timer is not None:
            self._arm()
        return self._wanted

    def calm(self) -> None:
        """Ends the watch: the process has understood, and what it does now may take its time."""
        with self._lock:
            self._calm = True
            if self._timer is not None:
                self._timer.cancel()

    def _note(self, *_: object) -> None:
        self._wanted = True

    def _watch(self) -> None:
        """Waits for the bytes that the interpreter writes at once, whatever the main thread is in."""
        while received := os.read(self._reader, 1):
            if received[0] == signal.SIGTERM:
                self._arm()
        os.close(self._reader)

    def _arm(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if not self._calm:
                self._timer = threading.Timer(GRACE, os._exit, (128 + signal.SIGTERM,))
                self._timer.daemon = True
                self._timer.start()
