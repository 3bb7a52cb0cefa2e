"""The published FR networks and MTCNN as PyTorch modules. Import from the modules; this file imports nothing.

Parameter names and shapes equal the originals', so that the published checkpoints load; the code is our own. Tests
compare key lists and outputs with golden values of the original code (tests/golden/make_face_networks_golden.py).
"""
