"""Points -> items of the catalog."""

from rediffuse.grounding.topk import TopK, top_k

__all__ = ["TopK", "top_k"]
