"""The controller of TrainingJobs: a pure core, the coordinator that the workers talk to, and the shells around them."""
