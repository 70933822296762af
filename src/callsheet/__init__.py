"""Program graphs for reinforcement learning: declare once, launch anywhere."""
