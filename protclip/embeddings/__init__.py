"""Folders of embeddings: what is embedded, by whom, how they are written, taken over, and read."""
