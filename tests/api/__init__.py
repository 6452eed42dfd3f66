"""Tests of service/api, one module a module."""
