"""Signals that come before a run can save, or after it has."""

import os
import signal
import threading

import pytest

from runner.config import signals
from runner.config.signals import STOPPING, Stopped
from runner.loop.stop_signals import StopSignals


@pytest.mark.parametrize(("number", "code"), zip(STOPPING, (143, 129, 138, 140), strict=True))
def test_first_signal_is_an_exception(number: signal.Signals, code: int):
    before = signal.getsignal(number)
    with signals.raising():
        with pytest.raises(Stopped, match=number.name) as raised:
            os.kill(os.getpid(), number)
        assert signals.exit_code_of(raised.value) == code
    assert signal.getsignal(number) is before


def test_ctrl_c_has_its_code():
    assert signals.exit_code_of(KeyboardInterrupt()) == 130


def test_second_signal_breaks_no_cleaning_up():
    with signals.raising():
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.noted() is signal.SIGUSR1
    assert signals.noted() is None


def test_signal_after_a_saved_run_repeats_the_first():
    with signals.raising():
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.exit_code == 129


def test_swallowed_exception_stops_the_run_that_follows():
    with signals.raising():
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
        with StopSignals() as stop:
            assert stop.signal is signal.SIGTERM


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.raising(), StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_set_no_handler():
    seen = []

    def work() -> None:
        with signals.raising():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
