"""The pocket model: all networks whose weights are installed with the package."""
