"""Tests of service/wire, one module a module."""
