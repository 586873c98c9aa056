"""The training loop: plain PyTorch, in one process of a group."""
