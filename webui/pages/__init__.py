"""The pages, one file each: its parts, its events, and nothing that could stand without Gradio."""
