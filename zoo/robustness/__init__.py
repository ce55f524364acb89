"""Attacks on classifiers, defences against them, and how robust a classifier is."""
