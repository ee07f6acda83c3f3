"""What the page 'Monitor' shows of a run: in words, as curves, as a wall of previews. It knows nothing of Gradio."""
