"""Programs built on the pipeline: the command line and what it writes."""
