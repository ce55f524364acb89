"""What aeon computes, and how it was measured; see README.md."""
