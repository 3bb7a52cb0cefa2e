"""Serving in four floors: protocol, Triton models, launcher, gateway; each uses those before it."""
