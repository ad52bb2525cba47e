"""The pocket model: all networks of the preset whose weights are installed."""
