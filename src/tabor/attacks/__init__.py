"""Planting backdoors, to have models whose trigger is known."""
