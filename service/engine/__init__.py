"""The arithmetic, independent of where calls come from: bind, evaluate, fuse."""
