"""The recipe form without its looks: a recipe's text, what may stand in it, what is wrong with it. No Gradio, no torch.

The YAML text is the one truth. A form is made from it (`form`), an edit of the form becomes an edit of the text
(`editing`, `document`), and the form is made again.
"""
