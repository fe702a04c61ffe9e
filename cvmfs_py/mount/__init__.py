"""The composition root: builds stores, fetchers, trust and trees from settings, and starts their tasks."""
