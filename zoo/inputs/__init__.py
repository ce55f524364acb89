"""From what users hand over (images, series, tracks) to arrays."""
