"""One independent formula for each loss, mirroring ``service/losses``: another path to the same number."""
