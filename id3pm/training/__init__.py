"""Training: data sets of faces and ID vectors, the paper's recipe, and export of the result as a bundle."""
