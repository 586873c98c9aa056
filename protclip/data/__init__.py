"""From pairs to batches: tokenise, batch, pad."""
