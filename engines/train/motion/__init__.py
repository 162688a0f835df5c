"""The motion model of `compact`: what it learns from, its networks and their training."""
