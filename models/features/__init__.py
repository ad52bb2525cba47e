"""Dense image features for matching: the same place of two objects has like vectors."""
