"""The tests of lossd."""
