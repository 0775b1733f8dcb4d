"""Pictures of a run's time: one row for each task, or condensed for large runs; as SVG or as a page."""
