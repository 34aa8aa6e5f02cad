"""A signal ends a command, whatever a library that runs meanwhile makes of the exception."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from bas import cli
from bas.errors import InputError, Stopped
from bas.workers import SILENT, MatchResult, each_match


@pytest.fixture(autouse=True)
def _nothing_heard(hears_ctrl_c: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:  # noqa: ARG001
    monkeypatch.setattr(cli, "_end_now", sys.exit)  # where threads of other tests live on, it ends the process
    yield
    Stopped.heard = 0


def interrupted() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


def become_runtime_error() -> None:
    """As C++ does with what Python raises in a callback."""
    try:
        interrupted()
    except BaseException:
        converted = True
    assert converted
    raise RuntimeError("Exception from src/frontends/pytorch")


def become_input_error() -> None:
    try:
        become_runtime_error()
    except RuntimeError as error:
        raise InputError("OpenVINO cannot convert this backbone") from error


def be_swallowed() -> None:
    """Goes on, as if nothing had been."""
    try:
        interrupted()
    except BaseException:
        swallowed = True
    assert swallowed
    for _ in range(100):
        time.sleep(0.1)
    raise AssertionError("nobody raised it anew")


def end_well() -> None:
    try:
        interrupted()
    except BaseException:
        return


@pytest.mark.parametrize("library", [interrupted, become_runtime_error, become_input_error, be_swallowed, end_well])
def test_a_signal_stays_a_signal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: Callable[[], None]
) -> None:
    monkeypatch.setattr(cli, "make_app", lambda _: lambda prog_name: library())  # noqa: ARG005
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert "bas: stopped" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_no_match_fails_of_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def work(match_id: str) -> MatchResult:
        begun.append(match_id)
        become_input_error()
        raise AssertionError

    monkeypatch.setattr(cli, "make_app", lambda _: lambda prog_name: each_match(["a", "b"], work, SILENT))  # noqa: ARG005
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert (stop.value.code, begun) == (130, ["a"])


def test_cleaning_up_is_not_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def command() -> None:
        try:
            interrupted()
        finally:
            time.sleep(1.5)  # longer than it takes to raise anew
            done.append("closed")

    monkeypatch.setattr(cli, "make_app", lambda _: lambda prog_name: command())  # noqa: ARG005
    with pytest.raises(SystemExit):
        cli.main()
    assert done == ["closed"]
