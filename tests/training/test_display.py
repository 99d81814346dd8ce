"""What people see while a network is trained."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from assay.evaluation import bar as module
from assay.training.display import Display

ROW = {"epoch": 2, "loss": 1.25, "clean": 0.875, "robust": 0.5, "images_per_second": 1234.4, "lr": 0.002}


@pytest.fixture
def screen(monkeypatch):
    """Replaces the console; gives what was written."""
    text = io.StringIO()

    def use(terminal):
        made = lambda **settings: Console(file=text, width=100, force_terminal=terminal, **settings | {"stderr": False})  # noqa: E731
        monkeypatch.setattr(module, "Console", made)
        return text

    return use


def test_a_row_for_each_epoch(screen):
    text = screen(False)
    with Display(10, 5, 64, show=True) as display:
        display.epoch(ROW)
        display.epoch(ROW | {"epoch": 10, "clean": None, "robust": None})
        display.epoch(ROW | {"images_per_second": 0.42})
    head, row, last, slow = text.getvalue().splitlines()
    assert head.split() == ["epoch", "loss", "clean", "robust", "images/s", "lr"]
    assert row.split() == ["2/10", "1.2500", "87.5%", "50.0%", "1,234", "0.002"]
    assert last.split()[2:4] == ["-", "-"]
    assert slow.split()[4] == "0.42"
    assert len(head) == len(row) == len(last) == len(slow)


def test_lines_now_and_then_where_there_is_no_terminal(screen, monkeypatch):
    text = screen(False)
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with Display(4, 10, 64, show=True) as display:
        for step in range(1, 21):
            clock[0] += 3.0
            display.step(step, 0.5, 2.0 * ((step - 1) % 10 + 1), 2.0 * step)
    lines = text.getvalue().splitlines()[1:]
    assert len(lines) == 5  # in a minute
    assert lines[0] == "epoch 1/4, step 4/10: loss 0.500  32 images/s  1:12 left"
    assert lines[-1].endswith("0:40 left")


def test_a_bar_on_a_terminal(screen):
    text = screen(True)
    with Display(2, 2000, 64, show=True) as display:
        display.step(2001, 0.5, 1.0, 2.0 * 2001)
        display._bar._progress.refresh()
    assert "epoch 2/2" in text.getvalue()
    assert "loss 0.500" in text.getvalue()
    assert "1:06:38 left" in text.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_silence(terminal, screen):
    text = screen(terminal)
    with Display(2, 2, 64, show=False) as display:
        display.step(1, 0.5, 1.0, 1.0)
        display.epoch(ROW)
        display.say("stopped")
    assert text.getvalue() == ""
