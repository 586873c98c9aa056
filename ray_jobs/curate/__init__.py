"""UniProtKB files into a folder of pairs."""
