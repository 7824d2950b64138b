"""Pieces and pictures of images on the sky: cut-outs, colour pictures, tiles for zoom; above files and sky."""
