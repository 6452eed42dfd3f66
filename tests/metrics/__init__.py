"""The metrics: values against independent oracles, and what holds for all of them."""
