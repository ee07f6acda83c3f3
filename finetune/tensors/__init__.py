"""safetensors files: their headers checked against strangers' tricks, one tensor at a time in, and out."""
