"""The toolbox for LoRA files: what one holds, and new ones made from others."""
