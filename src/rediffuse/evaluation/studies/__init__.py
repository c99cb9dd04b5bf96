"""Questions put to one trained model, each a file: what was found, in words, pictures and figures."""
