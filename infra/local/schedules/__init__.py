"""What makes services run by itself: by the clock, by what has arrived, by the age of a model."""
