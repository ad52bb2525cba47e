"""Where published weights come from, where they lie on this machine, and how they are fetched."""
