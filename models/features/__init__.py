"""Dense image features for matching: corresponding parts of two objects have similar vectors."""
