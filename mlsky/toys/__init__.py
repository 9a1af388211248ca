"""Images of blobs and digits, and networks of random numbers alone that make them."""
