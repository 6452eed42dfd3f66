"""Losses between scores of classes and the classes that are right."""
