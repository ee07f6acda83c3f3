"""The web page. It reads what runs write and starts what a person would type; closing it touches no run.

A browser's request meets `guard` first, then Gradio, then a handler in `pages`. What can stand without Gradio stands
beside: `run_reader` and `run_state` (a run's log as a value), `monitor`, `dataset_desk`, `recipe_form`, `playground`. A
name from the browser becomes a path in `places` and nowhere else. No torch is imported here: training, drawing and
exporting are processes of their own.
"""
