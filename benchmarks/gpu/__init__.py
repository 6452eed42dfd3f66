"""What a GPU gives, and whether the service is right on one: `check.sh` runs everything worth running once."""
