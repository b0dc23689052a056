"""The pure core: what to do about a job, decided from what is seen. No I/O, no clock, no memory."""
