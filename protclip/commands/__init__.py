"""Commands that need no Ray."""
