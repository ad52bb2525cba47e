"""What `promptseg eval` can measure: boxes, points, text, references and everything."""
