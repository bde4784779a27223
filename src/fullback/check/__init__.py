"""Checks of a backward pass: finite differences, and which mistake it has."""
