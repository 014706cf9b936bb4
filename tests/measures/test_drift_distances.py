"""PSI and Jensen-Shannon against values that can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from components.measures.drift import PSEUDO_COUNT, bin_counts, jensen_shannon, psi, quantile_edges


def test_psi_is_the_sum_over_bins_of_share_difference_times_log_ratio() -> None:
    r, w = (60 + PSEUDO_COUNT) / (100 + 2 * PSEUDO_COUNT), (30 + PSEUDO_COUNT) / (100 + 2 * PSEUDO_COUNT)
    expected = (w - r) * math.log(w / r) + ((1 - w) - (1 - r)) * math.log((1 - w) / (1 - r))
    assert psi([60, 40], [30, 70]) == pytest.approx(expected)
    assert psi([60, 40], [30, 70]) == pytest.approx(psi([30, 70], [60, 40]))


def test_psi_of_equal_shares_is_0_and_of_an_empty_bin_finite() -> None:
    assert psi([50, 50], [50, 50]) == 0
    assert 1 < psi([100, 100], [200, 0]) < 10


def test_jensen_shannon_goes_from_0_for_equal_to_1_for_nothing_in_common() -> None:
    assert jensen_shannon([1, 3], [10, 30]) == pytest.approx(0, abs=1e-7)
    assert jensen_shannon([5, 0], [0, 7]) == pytest.approx(1)
    # Shares (1, 0) and (1/2, 1/2): the middle is (3/4, 1/4).
    divergence = 0.5 * math.log2(4 / 3) + 0.5 * (0.5 * math.log2(2 / 3) + 0.5 * math.log2(2))
    assert jensen_shannon([8, 0], [4, 4]) == pytest.approx(math.sqrt(divergence))


def test_jensen_shannon_of_nothing_is_no_number() -> None:
    assert math.isnan(jensen_shannon([1, 2], [0, 0]))


@pytest.mark.parametrize("distance", [psi, jensen_shannon])
def test_other_bins_cannot_be_compared(distance: object) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        distance([1, 2], [1, 2, 3])  # type: ignore[operator]


def test_quantile_edges_make_equally_full_bins_and_missing_values_a_bin_of_their_own() -> None:
    values = np.arange(100.0)
    edges = quantile_edges(values, bins=4)
    assert bin_counts(np.append(values, [np.nan, np.inf]), edges).tolist() == [25, 25, 25, 25, 2]


def test_ties_make_fewer_bins_and_nothing_makes_one() -> None:
    assert bin_counts([1.0, 1.0, 1.0, 2.0], quantile_edges([1.0, 1.0, 1.0, 1.0], bins=4)).tolist() == [0, 4, 0]
    assert quantile_edges([np.nan], bins=4).tolist() == []
    assert bin_counts([3.0, np.nan], np.empty(0)).tolist() == [1, 1]
