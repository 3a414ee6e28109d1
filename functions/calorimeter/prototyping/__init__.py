"""Calorimeters that nobody has built yet: stacks of equal layers, and a fast model of what they would see."""
