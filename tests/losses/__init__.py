"""Properties of single families, beyond those of every loss."""
