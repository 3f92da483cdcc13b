"""Expected improvement."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from saccade.autosearch.steps import expected_improvement


@given(st.floats(0, 1), st.floats(0.01, 0.5), st.floats(0, 1))
def test_expected_improvement_is_that_of_a_normal_distribution(mean: float, sd: float, best: float) -> None:
    z = (mean - best) / sd
    (found,) = expected_improvement(np.array([mean]), np.array([sd]), best)
    assert found == pytest.approx(sd * (z * norm.cdf(z) + norm.pdf(z)), abs=1e-6)
