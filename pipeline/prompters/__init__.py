"""From a query to prompts: each module turns one kind of query into a PromptSet."""
