"""Label maps: paths, reading, writing, matching to images, conversion, checking."""
