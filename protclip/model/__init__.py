"""The dual encoder and its checkpoint folder."""
