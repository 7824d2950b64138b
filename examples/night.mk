# Reduce one night of one detector with Make: pattern rules, and the dependencies
# that the tools themselves write.
#
#   cd /data/night && awe-init && awe-ingest raw/
#   make -f night.mk NIGHT=2017-03-02
#
# A second `make` is silent. After `touch` of a raw frame every product keeps its
# bytes and the next `make` is silent again; after an edit, what hangs on the frame
# is made anew, and nothing else. With several detectors say which: DETECTOR=sim1.
#
# The read noise is taken from the biases themselves (--no-readnoise), so that the
# products hang on files that Make knows, and on nothing that a store may hold.
# Make does not see settings: after a change of awe.toml, `touch` what it concerns.

NIGHT    ?= $(error say which night: make -f night.mk NIGHT=2017-03-02)
DETECTOR ?=

WHICH     := night=$(NIGHT) $(addprefix detector=,$(DETECTOR))
BIASES    := $(shell awe-query raw_bias $(WHICH))
FILTERS   := $(sort $(shell awe-query raw_domeflat $(WHICH) --format paths --get filter))
EXPOSURES := $(shell awe-query raw_science $(WHICH) --format paths --get exposure)

DOMES   := $(FILTERS:%=domeflat_%.fits)
FLATS   := $(FILTERS:%=flat_%.fits)
REDUCED := $(EXPOSURES:%=reduced/%.fits)
RULES    = -u -o $@ --depfile .deps/$(@:.fits=.d)

.PHONY: all
.DELETE_ON_ERROR:
# Named here, so that Make does not take the flats for intermediate files and delete them.
all: bias.fits hotpix.fits $(DOMES) $(FLATS) $(REDUCED)

bias.fits: $(BIASES)
	awe-query raw_bias $(WHICH) | awe-bias -q $(RULES) --no-readnoise

hotpix.fits: bias.fits
	awe-hotpix -q $(RULES) bias.fits

domeflat_%.fits: bias.fits hotpix.fits
	awe-query raw_domeflat $(WHICH) filter=$* | awe-domeflat -q $(RULES) --bias bias.fits --hotpix hotpix.fits --no-readnoise

flat_%.fits: domeflat_%.fits
	awe-flat -q $(RULES) $<

# Which flat a frame needs is in its own rule (.deps), written when it is first made.
reduced/%.fits: | bias.fits hotpix.fits $(FLATS)
	awe-query raw_science $(WHICH) exposure=$* | awe-reduce -q $(RULES) \
	  --bias bias.fits --hotpix hotpix.fits $(FLATS:%=--flat %) --no-readnoise

-include $(patsubst %.fits,.deps/%.d,bias.fits hotpix.fits $(DOMES) $(FLATS) $(REDUCED))
