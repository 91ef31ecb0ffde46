"""Published methods that align video (and image) diffusion models, one file each."""
