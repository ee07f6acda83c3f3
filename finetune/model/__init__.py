"""Where SDXL comes from and how its parts are called: files, text encoders, VAE. Nothing here trains."""
