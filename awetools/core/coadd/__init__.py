"""From reduced frames to one deep image: in strips, under a memory cap, every pixel's inputs known."""
