"""Speed and correctness on a GPU: `check.sh` runs everything worth running once."""
