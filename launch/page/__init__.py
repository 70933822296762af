"""The page that a program serves of itself: what each node does and waits for."""
