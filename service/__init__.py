"""lossd: evaluate loss functions and their gradients over HTTP."""
