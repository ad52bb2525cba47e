"""OpenCLIP for phrases: dense features and the whole picture's presence."""
