"""Interruptions are heard, and a process that cannot listen ends."""

import os
import signal
import threading
import time

import pytest

from aion.training import interruption
from aion.training.interruption import Interruption


@pytest.mark.parametrize("watched", [False, True])
def test_a_signal_is_noted_and_the_handler_put_back(watched, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(interruption, "GRACE", 0.1)
    monkeypatch.setattr(os, "_exit", lambda status: ended.set())
    before = signal.getsignal(signal.SIGTERM)
    with Interruption(watched=watched) as heard:
        assert not heard.wanted
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard.wanted
        heard.calm()
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.set_wakeup_fd(-1) == -1
    assert not ended.wait(0.5)  # not even if the watch was late to hear of it


def test_a_process_that_gives_no_sign_of_life_ends(monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr(interruption, "GRACE", 0.2)
    monkeypatch.setattr(os, "_exit", lambda status: ended.set())
    with Interruption(watched=True) as heard:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(3):  # signs of life
            time.sleep(0.02)
            assert heard.wanted
        assert ended.wait(5)


def test_nothing_is_heard_outside_of_the_main_thread():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def other() -> None:
        with Interruption(watched=True) as heard:
            seen.append((signal.getsignal(signal.SIGTERM), heard.wanted))

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
