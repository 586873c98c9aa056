"""A pipeline from data to a served index: its settings, its records in storage, and what these tell of it."""
