# SPDX-License-Identifier: MIT
"""Signals are held until there is a program, and passed on to it."""

from __future__ import annotations

import os
import signal
import threading

from processes import StartProcess

from kvmabi.interpose.signals import Signals


def test_held_and_passed_on(start_process: StartProcess) -> None:
    """A signal that comes before the program is there reaches it all the same."""
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.stop
        sleeper = start_process("sleep", "600")
        signals.pass_to(sleeper.pid)
        assert sleeper.wait(60) == -signal.SIGTERM
        assert not signals.stop
        os.kill(os.getpid(), signal.SIGHUP)  # the program has ended
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
