"""A folder of pairs into a checkpoint, by Ray Train."""
