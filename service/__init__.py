"""lossd: evaluate loss functions and their gradients over HTTP."""

VERSION = "0.1.0"
