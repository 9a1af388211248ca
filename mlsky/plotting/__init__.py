"""Pictures: of a sky, of a training set, of the images of the toys."""
