"""A small world of shapes on plain grounds, in which every picture's content is known and can be read back.

`scenes` draws what a picture shows, `captions` says it, `render` paints it, `photos` writes sets of them, and
`oracle` reads a picture without having been trained. Numpy only: no model, no diffusion.
"""
