"""Synthetic data sets of faces by the million: `id3pm dataset plan`, `run`, `check`, `export`.

A plan says which identities and which images of each: a Parquet file, of which each row group is a shard. A shard is a
pure function of the plan: the images that pass the filters, and a table of those that did not. It is written whole or
not at all, into a folder or an object store, by this process, by several, with services, or on a Ray cluster.
"""
