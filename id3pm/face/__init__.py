"""The face stage: photo -> detection -> alignment -> ID vector. Import from the modules; this file imports nothing."""
