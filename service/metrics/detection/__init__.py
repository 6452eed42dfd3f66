"""Detection: objects found in images, compared with the true ones."""
