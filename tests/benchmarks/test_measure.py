"""Turns, medians and ratios."""

from __future__ import annotations

from benchmarks.measure import Result, Turn, race, ratio, without_start_up


def test_contenders_take_turns_and_the_first_turn_is_not_counted() -> None:
    calls: list[str] = []

    def contender(name: str) -> Turn:
        calls.append(name)
        return Turn(images=len(calls), seconds=1.0)

    first, second = race({"a": lambda: contender("a"), "b": lambda: contender("b")}, runs=2)
    assert calls == ["a", "b", "a", "b", "b", "a"]  # every other round backwards
    assert (first.rates, second.rates) == ([3.0, 6.0], [4.0, 5.0])


def result(name: str, images: int, *seconds: float) -> Result:
    return Result(name=name, turns=[Turn(images=images, seconds=value) for value in seconds])


def test_ratio_is_that_of_the_medians() -> None:
    results = [result("a", 8, 8.0, 1.0, 0.5), result("b", 8, 2.0, 4.0, 0.1)]
    assert ratio(results, "a", "b") == 2.0


def test_start_up_is_taken_off_run_by_run() -> None:
    steady = without_start_up(result("a", 101, 3.0, 6.0), result("one", 1, 1.0, 2.0))
    assert steady is not None
    assert (steady.name, steady.rates) == ("a, steady", [50.0, 25.0])


def test_start_up_is_not_taken_off_what_hardly_took_longer() -> None:
    assert without_start_up(result("a", 101, 3.0, 1.9), result("one", 1, 1.0, 1.0)) is None


def test_waiting_is_the_median_share() -> None:
    turns = [Turn(images=1, seconds=2.0, waited_s=waited) for waited in (0.2, 1.0, 0.4)]
    assert Result(name="a", turns=turns).waiting == 0.2
    assert result("b", 1, 2.0).waiting is None
