#!/usr/bin/env bash
# A small simulated night, from raw frames to a colour picture and lists of sources, checked against its truth.
#
#   examples/demo.sh [DIRECTORY]       (default: demo; it must not exist yet, or be an earlier demo)
set -euo pipefail

demo=${1:-demo}
here=$(cd "$(dirname "$0")" && pwd)
if [ -e "$demo" ] && [ ! -e "$demo/truth/catalog.fits" ]; then
  echo "demo.sh: $demo exists and is not an earlier demo; name another directory" >&2
  exit 2
fi
rm -rf "$demo"

say() { printf '\n== %s\n' "$*"; }

say "a raw night: two detectors, three filters"
awe-simulate "$demo" --detectors 2 --shape 512x1024 --filters R,V,g --biases 10 --flats 6 \
  --twilights 5 --darks 3 --exposures 2 --seed 3 -j2 >/dev/null
cd "$demo"

say "a store, and its raw frames"
awe-init >/dev/null
awe-ingest -q -j2 raw/ >/dev/null
awe-query raw --get frame_type,detector,filter --format csv | tail -n +2 | sort | uniq -c

say "the detector, one program at a time: read noise, bias, gain"
awe-query raw_bias     | awe-readnoise
awe-query raw_bias     | awe-bias -j2
awe-query raw_domeflat | awe-gain -j2

say "what one reduced frame hangs on: some is there, the rest is to be made"
awe-make reduced "$(awe-query raw_science --limit 1)" --tree

say "science frames, reduced, with all that they need"
awe-make reduced -j2

say "asked again, nothing is to be made; after another parameter, what hangs on it"
awe-make reduced -n
awe-make reduced --set bias.clip_sigma=4 -n | tail -n 3

say "sources, where they are on the sky, how bright: lists, with all that they need"
awe-refcat import reference reference.fits
awe-make sourcelist -j2
awe-query sourcelist --get filename,sources,fwhm_arcsec,depth_mag

say "deep images on one grid of the sky, and their sources"
awe-query reduced | awe-grid make field --fit --scale 0.25
awe-make coadd --set coadd.grid=field -j2
awe-query coadd | awe-sources -j2 | awe-sourcelist -j2

say "how well it agrees with the truth"
"${PYTHON:-python3}" "$here/check_truth.py" .

say "pictures"
awe-query reduced --limit 2 | awe-preview -q --mask --out-dir pictures
awe-query flat    --limit 1 | awe-preview -q --out-dir pictures
awe-query gain    --limit 1 | awe-plot -q -o pictures/gain.png
awe-query astrom  --limit 1 | awe-plot -q -o pictures/astrom.png
awe-query reduced --limit 1 | awe-show -q --out-dir pictures/sources
awe-colour -q "$(awe-query coadd filter=R)" "$(awe-query coadd filter=V)" "$(awe-query coadd filter=g)" \
  --scale sources -o pictures/colour.png

say "what to type next"
cat <<NEXT
. ${VIRTUAL_ENV:-$(dirname "$(dirname "$(command -v awe-bias)")")}/bin/activate
cd $demo                                  # the pictures are in pictures/
awe-query reduced --get path,filter,sky_adu,imstat.stdev
awe-lineage \$(awe-query reduced --limit 1)
awe-why \$(awe-query raw_science --limit 1) --role flat
awe-make --outdated -n                    # all is up to date
awe-timeline bias dark flat
awe-verify
NEXT
