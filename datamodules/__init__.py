"""Data modules of the zoo, named by data format and shared by methods. Each works without arguments on embedded data."""
