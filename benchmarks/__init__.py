"""The speed claims of the README, reproducible, each beside a peer in the same run."""
