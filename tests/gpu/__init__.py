"""CUDA: on a real device if available, else on a pretended one."""
