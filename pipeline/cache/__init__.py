"""What models compute from pictures, kept on disk."""
