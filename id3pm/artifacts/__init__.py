"""Bundles and engine sets that travel: pulled from and pushed to the Hugging Face Hub and OCI registries."""
