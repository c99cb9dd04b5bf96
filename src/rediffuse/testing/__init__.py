"""Contract tests, shipped: whoever adds a recommender, a sampler or a schedule gets its tests for free."""
