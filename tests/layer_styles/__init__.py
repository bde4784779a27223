"""Layers as courses, books and blogs write them, right and wrong: functions and classes."""
