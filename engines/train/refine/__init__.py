"""The refinement network of `compact`: what it learns from, the network and its training."""
