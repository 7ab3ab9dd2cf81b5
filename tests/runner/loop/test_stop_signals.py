import os
import signal
import subprocess
import sys
import threading

import pytest

from runner.loop.stop_signals import StopSignals


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        (signal.SIGINT, 130),
        (signal.SIGHUP, 129),
        (signal.SIGUSR1, 138),
        (signal.SIGUSR2, 140),
    ],
)
def test_first_signal_decides_exit_code(number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]):
    with StopSignals() as stop:
        assert not stop
        assert stop.exit_code is None
        os.kill(os.getpid(), number)
        assert stop
        assert stop.signal is number
    assert stop.exit_code == code
    assert f"{number.name}: saving and stopping" in capfd.readouterr().err


def test_a_second_interrupt_aborts_at_once():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.exit_code == 130


def test_repeated_terminations_are_one(capfd: pytest.CaptureFixture[str]):
    with StopSignals() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
    assert stop.exit_code == 143
    assert capfd.readouterr().err.count("saving and stopping") == 1


@pytest.mark.parametrize("first", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGINT])
def test_sigterm_after_a_warning_changes_nothing(first: signal.Signals, capfd: pytest.CaptureFixture[str]):
    with StopSignals() as stop:
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.exit_code == 128 + first
    assert capfd.readouterr().err.count("saving and stopping") == 1


def test_closed_terminal_does_not_break_the_handler():
    """After SIGHUP there is nobody to read what the handler says."""
    read, write = os.pipe()
    kept = os.dup(2)
    try:
        os.close(read)
        os.dup2(write, 2)
        with StopSignals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(write)


def test_followers_leave_ctrl_c_to_another(capfd: pytest.CaptureFixture[str]):
    before = signal.getsignal(signal.SIGINT)
    with StopSignals(follows=True) as stop:
        assert signal.getsignal(signal.SIGINT) is before
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop
    assert stop.exit_code == 143
    assert capfd.readouterr().err == ""


def test_interrupt_after_signal_aborts():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.exit_code == 143


def test_handlers_are_restored_also_after_an_error():
    def handler(number: int, frame: object) -> None: ...

    def fail() -> None:
        with StopSignals():
            assert signal.getsignal(signal.SIGTERM) is not handler
            raise RuntimeError("inside")

    before = signal.signal(signal.SIGTERM, handler)
    interrupt = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(RuntimeError, match="inside"):
            fail()
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGINT) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_changes_nothing():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with StopSignals() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_third_interrupt_ends_stuck_cleanup():
    program = """
import os, signal
from runner.loop.stop_signals import StopSignals
with StopSignals():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGINT)
        print("still alive")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGINT
    assert "still alive" not in done.stdout
