"""LoRA files as other programs write them, read module by module into the neutral forms."""
