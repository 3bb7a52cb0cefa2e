"""Bundles and engine sets on the Hugging Face Hub and in OCI registries: pull and push."""
