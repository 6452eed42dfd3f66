"""The speed claims of the README, reproducible, each with a peer in the same run."""
