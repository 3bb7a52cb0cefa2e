"""The space of ID vectors: interpolation, principal axes, custom directions, means.

Every ID vector of this package is a unit vector (`id3pm.face.encoders.FaceEncoder`), so every function here takes any
vector that is not zero, scales it to L2 norm 1 first, and gives unit vectors back, which can go into a pipeline or a
request as they are. The sums are float64, the results float32. Shapes broadcast: the leading axes of vectors [..., D]
go with the axes of amounts, so one vector and T amounts give [T, D].

`id3pm_client.latent` does the same for clients, with a generated copy of `vectors.py` (`client/generate.py`).
"""
