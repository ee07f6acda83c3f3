"""LoRA on the U-Net and the text encoders: which modules, how they are put in, and what was learned."""
