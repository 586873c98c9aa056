"""The core of training: what a learner makes the gradients of, trained with exact resume, in one process of a group."""
