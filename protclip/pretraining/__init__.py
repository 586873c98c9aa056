"""Pretraining of the dual encoder, in one process of a group: ``ray_jobs/pretrain`` starts the processes."""
