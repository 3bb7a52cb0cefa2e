"""The U-Nets in torch: guided-diffusion's parameter names, shapes and outputs, plus identity and attribute inputs."""
