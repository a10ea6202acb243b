"""The page to try it with; needs Gradio, the extra `app`."""
