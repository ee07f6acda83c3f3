"""What the parts of SDXL are called: its modules and their shapes, and the dialects' words for them. Without torch."""
