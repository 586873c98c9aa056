"""UniProtKB as it is published: streaming readers that give one type, Entry."""
