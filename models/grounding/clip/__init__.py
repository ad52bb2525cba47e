"""OpenCLIP for phrases: heat maps from dense features, presence from the whole image."""
