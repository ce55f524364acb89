"""Data modules, named by data format and shared by methods. Each works without arguments on embedded data."""
