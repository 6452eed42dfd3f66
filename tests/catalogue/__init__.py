"""Tests of service/catalogue, one module a module."""
