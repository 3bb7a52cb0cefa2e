"""The parts of `student_methods.py`: ways to train a student, and how its images are judged."""
