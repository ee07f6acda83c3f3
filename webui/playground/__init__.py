"""What the page 'Playground' stands on: the worker it talks to, its jobs, and what it asks for. No Gradio, no torch."""
