# Reduce one night of one detector with Make: pattern rules, and the dependencies
# that the tools themselves write.
#
#   cd /data/night && awe-init && awe-ingest raw/
#   make -f night.mk NIGHT=2017-03-02
#
# A second `make` is silent. After `touch` of a raw frame every product keeps its
# bytes and the next `make` is silent again; after an edit, what hangs on the frame
# is made anew, and nothing else. With several detectors say which: DETECTOR=sim1.
# Darks and twilight flats are used where the night has some.
#
# What is not made here is not taken from a store either (--no-readnoise, --no-gain, ...),
# so that the products hang on files that Make knows, and on nothing else.
# Make does not see settings: after a change of awe.toml, `touch` what it concerns.

NIGHT    ?= $(error say which night: make -f night.mk NIGHT=2017-03-02)
DETECTOR ?=

WHICH     := night=$(NIGHT) $(addprefix detector=,$(DETECTOR))
BIASES    := $(shell awe-query raw_bias $(WHICH))
DARKS     := $(shell awe-query raw_dark $(WHICH))
FILTERS   := $(sort $(shell awe-query raw_domeflat $(WHICH) --format paths --get filter))
TWILIGHTS := $(filter $(FILTERS),$(sort $(shell awe-query raw_twiflat $(WHICH) --format paths --get filter)))
EXPOSURES := $(shell awe-query raw_science $(WHICH) --format paths --get exposure)

DARK    := $(if $(DARKS),dark.fits)
DOMES   := $(FILTERS:%=domeflat_%.fits)
TWIS    := $(TWILIGHTS:%=twiflat_%.fits)
COLDS   := $(FILTERS:%=coldpix_%.fits)
FLATS   := $(FILTERS:%=flat_%.fits)
REDUCED := $(EXPOSURES:%=reduced/%.fits)
PRODUCTS := bias.fits $(DARK) hotpix.fits $(DOMES) $(TWIS) $(COLDS) $(FLATS) $(REDUCED)
RULES     = -u -o $@ --depfile .deps/$(@:.fits=.d)

# What every exposure of light is corrected with.
DETECTOR_OPTIONS := --bias bias.fits --hotpix hotpix.fits $(if $(DARK),--dark dark.fits,--no-dark) --no-readnoise --no-gain

.PHONY: all
.DELETE_ON_ERROR:
# Named here, so that Make does not take the flats for intermediate files and delete them.
all: $(PRODUCTS)

bias.fits: $(BIASES)
	awe-query raw_bias $(WHICH) | awe-bias -q $(RULES) --no-readnoise

dark.fits: bias.fits $(DARKS)
	awe-query raw_dark $(WHICH) | awe-dark -q $(RULES) --bias bias.fits --no-readnoise --no-gain

hotpix.fits: $(or $(DARK),bias.fits)
	awe-hotpix -q $(RULES) $<

domeflat_%.fits: bias.fits $(DARK) hotpix.fits
	awe-query raw_domeflat $(WHICH) filter=$* | awe-domeflat -q $(RULES) $(DETECTOR_OPTIONS)

twiflat_%.fits: bias.fits $(DARK) hotpix.fits
	awe-query raw_twiflat $(WHICH) filter=$* | awe-twiflat -q $(RULES) $(DETECTOR_OPTIONS)

coldpix_%.fits: domeflat_%.fits
	awe-coldpix -q $(RULES) $<

$(TWILIGHTS:%=flat_%.fits): flat_%.fits: twiflat_%.fits
flat_%.fits: domeflat_%.fits coldpix_%.fits
	awe-flat -q $(RULES) $< --coldpix coldpix_$*.fits --no-nightflat \
	  $(if $(filter $*,$(TWILIGHTS)),--twiflat twiflat_$*.fits,--no-twiflat)

# Which flat a frame needs is in its own rule (.deps), written when it is first made.
reduced/%.fits: | bias.fits $(DARK) hotpix.fits $(COLDS) $(FLATS)
	awe-query raw_science $(WHICH) exposure=$* | awe-reduce -q $(RULES) $(DETECTOR_OPTIONS) \
	  $(FLATS:%=--flat %) $(COLDS:%=--coldpix %) --no-fringe

-include $(patsubst %.fits,.deps/%.d,$(PRODUCTS))
