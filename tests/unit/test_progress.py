from __future__ import annotations

import io

import pytest
from rich.console import Console

from flightdeck.progress import Board


def board_on(text: io.StringIO) -> Board:
    return Board(["first", "second"], Console(file=text, width=120))


def test_a_run_is_well_only_when_every_stage_was_reached_and_none_fell_short():
    board = board_on(io.StringIO())
    with board, board.stage("first"):
        pass
    assert not board.ok, "the second was not reached"
    with board.stage("second"):
        pass
    assert board.ok


def test_a_stage_that_falls_short_lets_the_others_go_on_and_is_told_in_words():
    text = io.StringIO()
    board = board_on(text)
    with board:
        with board.stage("first") as stage:
            stage.figure("10 rows")
            assert not stage.expect(False, "expected 20 rows")
        with board.stage("second") as stage:
            assert stage.expect(True, "never said")
    assert not board.ok
    Console(file=text, width=120).print(board.table())
    told = text.getvalue()
    assert "FELL SHORT: expected 20 rows" in told
    assert "fell short: expected 20 rows" in told
    assert "never said" not in told


def test_an_error_ends_the_stage_with_its_first_line():
    board = board_on(io.StringIO())
    with pytest.raises(RuntimeError), board.stage("first"):
        raise RuntimeError("mlflow is away\nlast lines of the log")
    assert board.stages["first"].short == ["mlflow is away"]
    assert board.stages["first"].ended is not None


def test_ctrl_c_is_told_as_an_interruption():
    board = board_on(io.StringIO())
    with pytest.raises(KeyboardInterrupt), board.stage("first"):
        raise KeyboardInterrupt
    assert board.stages["first"].short == ["interrupted"]


def test_stages_that_were_not_reached_say_so():
    text = io.StringIO()
    Console(file=text, width=120).print(board_on(io.StringIO()).table())
    assert text.getvalue().count("not reached") == 2


def test_what_fell_short_can_be_said_again_after_a_long_table():
    board = Board(["train", "serve", "report"])
    with board.stage("train"):
        pass
    with board.stage("serve") as stage:
        stage.expect(False, "3 requests failed")
    assert board.shortfalls() == ["serve fell short: 3 requests failed", "report was not reached"]
