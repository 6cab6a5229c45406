"""Told before it hurts: what is watched over, what was found, and who is told."""
