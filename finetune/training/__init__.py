"""Training: the step, what it needs before it, and the loop around it."""
