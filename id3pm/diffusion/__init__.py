"""Diffusion mathematics over the Python array API: schedules, noise, guidance and samplers. Every option is per row."""
