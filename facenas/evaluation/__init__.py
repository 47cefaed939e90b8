"""How good an embedding is: extraction and exact metrics."""
