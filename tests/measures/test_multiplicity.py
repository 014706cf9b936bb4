from __future__ import annotations

import numpy as np
import pytest

from components.measures.multiplicity import holm


def test_holm_steps_down_from_the_smallest_p_value() -> None:
    assert holm([0.04, 0.01, 0.02], level=0.05).tolist() == [True, True, True]
    assert holm([0.04, 0.01, 0.03], level=0.05).tolist() == [False, True, False]


def test_one_that_misses_its_bar_keeps_larger_ones_out() -> None:
    """0.03 misses 0.05 / 2, so 0.04 is not looked at, though it is under 0.05."""
    assert holm([0.001, 0.03, 0.04], level=0.05).tolist() == [True, False, False]


def test_a_p_value_that_is_no_number_is_never_rejected_and_takes_its_place() -> None:
    assert holm([np.nan, 0.03], level=0.05).tolist() == [False, False]
    assert holm([], level=0.05).tolist() == []


@pytest.mark.parametrize("hypotheses", [1, 5, 30])
def test_any_false_rejection_is_as_rare_as_the_level_says(hypotheses: int) -> None:
    generator = np.random.default_rng(1)
    false = [holm(list(generator.random(hypotheses)), level=0.05).any() for _ in range(4000)]
    assert np.mean(false) == pytest.approx(0.05, abs=0.012)
