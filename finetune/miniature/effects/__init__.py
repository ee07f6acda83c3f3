"""What the embedded miniature SDXL does, measured: every effect of SDXL's conditions, refiner and training, with bars.

Pictures are drawn by diffusers' own pipelines from the folders as they ship and read by an oracle that was never
trained (`imagesets.world.oracle`). One file a family of rows; `check` runs them all. Nothing here trains the miniature
itself: that is `finetune.miniature.build`.
"""
