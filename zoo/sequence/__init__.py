"""Methods for series and trajectories."""
