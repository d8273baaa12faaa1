# SPDX-License-Identifier: MIT
"""Signals are held until there is a program, and passed on to it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading

from kvmabi.interpose.signals import Signals


def test_held_and_passed_on() -> None:
    """A signal that comes before the program is there reaches it all the same."""
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.stop
        sleeper = subprocess.Popen(["sleep", "60"])
        signals.pass_to(sleeper.pid)
        assert sleeper.wait(10) == -signal.SIGTERM
        assert not signals.stop
        os.kill(os.getpid(), signal.SIGHUP)  # nobody is there any more
        signals.pass_to(None)
        os.kill(os.getpid(), signal.SIGHUP)
        assert signals.stop


def test_handlers_come_back() -> None:
    """Afterwards signals are handled as before; in another thread than the main one nothing is done."""
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before

    handlers = []

    def enter() -> None:
        with Signals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [before]
