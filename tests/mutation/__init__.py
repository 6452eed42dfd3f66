"""Mutants: how many changes of a module its tests notice."""
