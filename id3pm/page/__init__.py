"""The page of `id3pm page`: people, settings, runs and their history."""
