"""What a scheduler can tell apart."""

FINISHED, FAILED, USAGE, PREEMPTED, INTERRUPTED = 0, 1, 2, 75, 130
