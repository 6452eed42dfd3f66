"""What each kind of request is turned into, and its answer back into bytes."""
