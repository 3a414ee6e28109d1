"""Heavy work on an HPC site: an interLink plugin that turns pods into batch jobs."""
