"""The queue's workers, and what they do for each kind of job."""
