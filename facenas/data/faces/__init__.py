"""Face images of 112x112 pixels: the zarr store, what fills it and what reads it."""
