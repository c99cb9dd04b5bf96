from rediffuse.testing.contracts import RecommenderContract


class TestEveryRegisteredMethod(RecommenderContract):
    """All contracts for all methods."""
