"""Methods on time series, tracks and text."""
