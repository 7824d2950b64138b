"""The sky: world coordinates, reference catalogues, and the solution that joins pixels to both."""
