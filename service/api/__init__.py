"""HTTP: each route decodes, evaluates and encodes, and says in one place how problems are answered."""
