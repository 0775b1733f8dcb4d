"""The audit log for people: keys, checkpoints, verifying, searching, exporting, keeping and erasing."""
