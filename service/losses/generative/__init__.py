"""Losses of generative models: adversarial scores, gradient penalties, variational and discrete latents."""
