"""The whole way once on this machine."""
