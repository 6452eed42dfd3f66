"""Arithmetic that does not know where calls come from: bind, evaluate, fuse."""
