"""Published weights: the list of sources, finding them on this machine, fetching them."""
