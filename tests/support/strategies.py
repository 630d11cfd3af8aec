"""What hypothesis draws in several modules, and how."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

IN_PLACE = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""For examples that all use one folder, each writing over the one before."""
SEEDS = st.integers(-(2**70), 2**70)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
