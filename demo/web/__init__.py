"""The page of `demo/page.py`: people, settings, runs and their history; `app` alone knows Gradio."""
