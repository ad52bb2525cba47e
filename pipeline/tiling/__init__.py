"""Large pictures: a look at the whole, looks at overlapping tiles, and one answer from all."""
