"""CUDA: on a real device where there is one, else on one that only looks like it."""
