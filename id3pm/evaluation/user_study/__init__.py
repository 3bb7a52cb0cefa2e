"""A user study: people rank methods by identity and realism (Table 3 of the paper's supplement)."""
