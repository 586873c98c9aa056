"""Ray as a command of ours meets it: one of its own on this machine, or a cluster that it joins."""
