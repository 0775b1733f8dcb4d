"""What users write: tasks, workflows, registries, and the readers of workflow files."""
