"""Diffusion mathematics over the Python array API: schedules, noise, guidance and samplers, all of it per row."""
