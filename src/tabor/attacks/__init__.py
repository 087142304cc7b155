"""Planting backdoors, to have models whose trigger is known.

A scan plants none: its second look takes from here what a backdoor is, and how its success is measured.
"""
