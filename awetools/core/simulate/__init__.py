"""A simulated night of a mosaic camera, with the truth beside it: what a reduction should find.

MODEL says, in paragraphs for the manual, what is modelled and which files hold
it. This package's face imports no numpy: `spec` has the settings (NightSpec),
`night.simulate_night` makes the night.
"""

from __future__ import annotations

from .spec import FILTERS, NightSpec

__all__ = ["FILTERS", "MODEL", "NightSpec"]

MODEL = """\
The camera SIMCAM is a row of detectors (sim1, sim2, ... from left to right) with gaps of 5% of their \
width between them. A detector has two amplifiers that read its left half (A) and right half (B) through \
their own lower corner, each with its own gain (about 1.8 e-/ADU or --gain-e-adu, within 3% of each \
other), read noise (about 5 e-) and bias level. A raw frame is one detector of one exposure: a FITS file \
with a single image of unsigned 16-bit numbers. Its columns are 32 of overscan of A, the data of A, the \
data of B, 32 of overscan of B; with one amplifier, 32 of overscan, then the data. North is up and east is \
left.

Counts are: the amplifier's level, an offset of the frame and a smooth drift along its rows (in data and \
overscan alike); a bias pattern of rows, columns and gradients, mirrored for B (in the data only, the same \
in all frames); read noise; and (photons + dark current + cosmic rays) / gain, rounded and cut off at \
65535. Photon noise is Poisson's. Charge above the full well (95,000 to 130,000 e-) bleeds along the \
columns, half each way. With --brighter-fatter fuller pixels push charge into their neighbours, with \
--nonlinearity an amplifier (each its own, within 20%) reads too little of a strong signal; both are off \
unless asked for. Hot pixels and hot columns have dark current and a bias offset, cold pixels and \
dead columns a low response. Dark current has a floor with structure and glows in the amplifiers' corners.

The response of a filter has pixel-to-pixel variations of 1%, vignetting, smooth variations and the \
shadows of dust, some on the window (in all filters) and some on the filter. Dome flats come in pairs of \
one exposure time, at levels of about 10,000 to 36,000 ADU (--flat-low-adu, --flat-high-adu); their lamp \
is stable to 0.2% but for --lamp-drift, and lights the mosaic unevenly. Twilight flats fade exponentially, \
have small gradients of any direction, and a few stars. With --scattered-light flats and skies are brighter in the \
middle of the mosaic, by a term of r^2, but stars are not: divided by such flats they are too faint there.

Science frames show one sky of stars and galaxies (exponential discs and Spergel bulges) under a Moffat \
profile (beta = 3.5) with a seeing and ellipticity of each exposure, dimmed by extinction and \
transparency; a sky with a gradient, with fringes in I, i, z and y; and in the second exposure of each \
filter and every third after it a satellite trail. Sources have colours, stars also proper motions. The \
exposures are dithered by a little more than the gaps. The header holds an undistorted WCS at the wanted \
pointing; the true one is off by some arcsec and a small rotation, each detector is a little shifted, \
turned and scaled, and a cubic distortion (TPV) reaches 0.5% of the radius at the mosaic's corner. The \
night begins in the afternoon at longitude -70.4 deg: biases, dome flats, twilight flats, science frames \
with the filters in turn, and darks in the morning; the date of the night is that of its evening.

Everything is drawn from random streams that have names, so a frame does not change with the number of \
other frames or processes, and the same settings give the same bytes (with the same numpy, on the same \
type of processor).

Header cards of raw frames: TELESCOP INSTRUME DETECTOR; OBSTYPE (BIAS DARK DOMEFLAT SKYFLAT OBJECT), \
OBJECT, FILTER (not in biases and darks), EXPTIME (s); DATE-OBS and MJD-OBS (UTC, start); EXPNUM, the \
number of the exposure in the night; CCDSUM READMODE GAINSET; DETTEMP (C); SATURATE (ADU of the raw frame, \
bias included); PIXSCALE (arcsec); SITELONG (east positive) and SITELAT (deg); for each amplifier \
DATASECA, BIASSECA, TRIMSECA (place of its data in the trimmed detector), GAINA (e-/ADU) and RDNOISEA \
(e-), and the same with B, or without a letter if there is only one; in science frames also RA, DEC (deg, \
wanted), AIRMASS and the WCS, whose CRPIX1 counts the overscan.

Files, with NNNN the number of the exposure and DET a detector: raw/sim_NNNN_DET.fits, the raw frames. \
reference.fits, a table as from a survey: most stars brighter than 21 mag in the first filter, at epoch \
2016.0, with proper motions (mas/yr, in right ascension times cos Dec), 20 mas and 0.01 mag errors. \
frames.csv, a line a frame: type, filter, exposure time, start, level (mean light of a flat, sky of a \
science frame, in ADU), zero point (mag of 1 ADU/s in the reduced frame, extinction and transparency \
included), effective gain, seeing, counts of saturated, cosmic-ray and trail pixels. run.json, written \
last: the settings, the camera (gain, read noise in e- and ADU, bias level, sections, nonlinearity and \
level read at which it is 1% (nonlinear_adu) of each amplifier, full well), and each exposure's conditions \
(pointing error, rotation, seeing, ellipticity, sky, gradients, trail) or lamp.

Below truth/, all for the trimmed detector: bias_DET.fits (ADU above the overscan of the same row), \
dark_DET.fits (e-/s), pixmask_DET.fits (bits 1 hot, 2 cold or dead), flat_FILTER_DET.fits (response in \
electrons), flat_adu_FILTER_DET.fits (response / gain, as a reduction in ADU measures it; card EFFGAIN is \
the one gain in e-/ADU of frames divided by it), both with mean 1 over the good pixels, \
fringe_FILTER_DET.fits (relative to the sky, amplitude 1; multiply by fringe_amplitude of run.json), \
scattered_DET.fits (what flats have too much of, of mean 1; only with --scattered-light). \
science/sim_NNNN_DET.fits is the light of sky, sources, fringes and trail in ADU, without noise: what a \
perfect reduction with flat_adu finds, but for noise, cosmic rays and saturation. mask/sim_NNNN_DET.fits, \
for science frames and darks, has the bits 4 saturated or bled into, 8 cosmic ray and 16 trail (8 and 16 \
where the ray or trail is above twice the pixel's noise). wcs/sim_NNNN_DET.head is the true WCS as header \
cards. catalog.fits has every source at the epoch of the night: ID, TYPE (STAR, GALAXY), RA and DEC (deg), \
PMRA and PMDEC (mas/yr), MAG_FILTER (above the atmosphere), COLOUR (V - R), and for galaxies R_HALF \
(half-light radius of the disc along its major axis, arcsec), AXIS_RATIO, PA_DEG (from north through \
east), BULGE (its fraction of the light), R_BULGE (arcsec).
"""
