"""Pages for browsers; they load nothing from other hosts."""
