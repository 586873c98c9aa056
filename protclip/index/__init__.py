"""Search over embeddings: exact, and by an HNSW graph that is checked before it is trusted."""
