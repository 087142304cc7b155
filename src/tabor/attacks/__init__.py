"""Planting backdoors, to have models whose trigger is known.  Nothing here is used by a scan."""
