"""Quality and diversity of generated faces: Frechet distance, KID, precision and recall, by guidance scale."""
