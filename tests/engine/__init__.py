"""Tests of service/engine, one module a module."""
