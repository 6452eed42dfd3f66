"""Properties of every loss. A new one is tested as soon as it is declared."""
