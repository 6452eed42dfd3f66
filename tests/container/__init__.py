"""The image, built and run: `make test-image`."""
