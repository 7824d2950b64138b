"""The story of one pixel: everything that entered it, down to the raw frames, and the arithmetic done again.

`walk` follows a pixel through the records: `places` says which pixels of an input entered, `reading`
reads them, `parts` and `arithmetic` combine them again; of kinds on a grid of the sky `gridded` does all
of it (`coadded`, `regridded`, on `gridframes`, `gridproduct` and `gridvalues`). `reasons` tells why the
pixel is masked, `sky` which pixel shows a place, `cutouts` draws what lies around it; `values` is what
they hand on.
"""
