"""Training: one loop for candidates and for full trainings, on one device."""
