"""Drawing pictures with base and refiner, as diffusers' own pipelines draw them."""
