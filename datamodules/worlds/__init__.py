"""Seeded simulators (numpy and Pillow only), named by what they simulate."""
