"""Files: skies and sets on disk, and how they are written."""
