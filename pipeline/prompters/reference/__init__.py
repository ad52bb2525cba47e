"""Examples to prompts: encoding, matching, and concept files."""
