"""Magnitudes to JPEGs, by what can be heard."""
