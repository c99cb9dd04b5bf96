"""Contract tests, shipped: whoever adds a recommender, a sampler or a schedule gets its tests for free.

    from rediffuse.testing.contracts import RecommenderContract

    class TestMine(RecommenderContract):
        only = ("mine",)

Left empty, the class runs for every registered method, those of installed packages included.
"""

from rediffuse.errors import MissingExtra, say

try:
    import pytest
except ImportError:
    raise MissingExtra(
        say("rediffuse.testing needs pytest, which is not installed", remedy="Run: pip install pytest")
    ) from None

pytest.register_assert_rewrite("rediffuse.testing.contracts", "rediffuse.testing.subjects")
