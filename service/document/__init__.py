"""The OpenAPI document and the written documentation, made from the catalogue."""
