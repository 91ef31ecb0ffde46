"""Ctrl-C once ends a run after its step, twice at once."""

from __future__ import annotations

import signal

import pytest

from mmrl.train.stop import NOTICE, stop_on_signal


def test_the_first_interrupt_raises_the_flag_and_says_so_at_once(capfd) -> None:
    with stop_on_signal() as flag:
        assert not flag.raised
        signal.raise_signal(signal.SIGINT)
        assert flag.raised
        assert capfd.readouterr().err == f"{NOTICE}\n"


def test_the_second_interrupt_ends_at_once_and_a_third_would_kill() -> None:
    ours = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt), stop_on_signal():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, ours)


def test_the_other_processes_of_a_run_are_quiet(capfd) -> None:
    with stop_on_signal() as flag:
        flag.quiet = True
        signal.raise_signal(signal.SIGINT)
    assert flag.raised and capfd.readouterr().err == ""


def test_signals_mean_afterwards_what_they_meant_before() -> None:
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with stop_on_signal():
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in numbers] == before
