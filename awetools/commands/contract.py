"""What every program promises the shell: the text of awe(1), of which other pages say only their own part."""

from __future__ import annotations

from ..core.errors import SEVERITY
from ..core.pixels.mask import BIT_NAMES

MASK_BITS = ", ".join(f"{int(bit)} {text}" for bit, text in BIT_NAMES.items())

CONTRACT: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "Input",
        (
            "File names are arguments; with none, or with `-`, they are read from standard input, one a line "
            "(with `-0` ended by NUL). A line that begins with `{` is a JSON object with a `path`, so the output "
            "of one program under `--json` is the input of the next.",
            "`file.fits[CCD5]` or `file.fits[3]` names one detector of a multi-extension file; a number is the "
            "HDU, and the primary is 0. A file whose whole name is that is taken as it is.",
            "Empty standard input is an error (4), because without the shell's `pipefail` it is how a failure "
            "further up the pipe arrives. On a terminal, no input is a usage error (2), never a silent wait.",
        ),
    ),
    (
        "Output",
        (
            "Standard output is data only: one path a line, or with `--json` one JSON object a line. Pixels stay "
            "in files. Everything said to people goes to standard error, as `awe-bias: warning: ...`; an error "
            "names its slug, the file, the values that disagree, and on a line `try: ...` a command that helps.",
            "`-q` leaves warnings and errors only, `-v` says more, `-vv` shows where a bug is. With `--log-json` "
            "each line of standard error is a JSON object. A progress bar shows only where standard error is a "
            "terminal.",
        ),
    ),
    (
        "Many at once",
        (
            "A program takes any number of inputs. One that cannot be used does not stop the others: it is named "
            f"with its reason, and the exit code of the run is the first of {', '.join(map(str, SEVERITY))} that "
            "occurred. Only a stack is all or nothing: none is made of the frames that happen to be readable. "
            "`-j N` uses N processes; the result is the same bits.",
        ),
    ),
    (
        "Products and records",
        (
            "A product `bias.fits` has its record beside it, `bias.fits.json`: kind and revision of the recipe, "
            "every parameter with its origin, every input with the hash of its content, the quality, the "
            "versions of the software and the run. The recipe key is the hash of what decides the product; a "
            "product is up to date if the key, computed again, is the same. Names and times do not matter.",
            "`-o FILE` names the one product; `--out-dir DIR` takes each product of the run; without either the "
            "store names it, `KIND/NIGHT/DETECTOR[_FILTER][_EXPOSURE]-KEY8.fits`. Frames of one group (the same "
            "detector, readout, night, ...) make one product; a mixture under `-o` is refused.",
            "`-u` does nothing where the product is up to date. `-n` says what would be made, `--why` for which "
            "reason, and `--check` answers by its exit code (3: something is missing or out of date).",
        ),
    ),
    (
        "Overwriting",
        (
            "A product that awetools wrote is replaced, whole or not at all, and its record is kept. A file that "
            "awetools did not write, or that was edited since, is refused (2) unless `--force` is given. Raw "
            "frames are never changed, moved or renamed, and nothing is written beside them.",
        ),
    ),
    (
        "Parameters",
        (
            "A parameter gets its value from the last of these that gives one: built-in, camera table, home "
            "(`~/.config/awetools/awe.toml`), store (`.awe/awe.toml`), project (the nearest `awe.toml` upward), "
            "environment (`AWE_KIND_PARAMETER`, such as `AWE_BIAS_CLIP_SIGMA`), command line. Within a file, "
            "what is said for a detector beats what is said for a filter, that beats what is said for a camera, "
            "and that what is said in general. An empty variable counts as not set. `--params` prints each "
            "parameter with value, unit and origin, and stops. A name that does not exist is an error that "
            "names the nearest one.",
        ),
    ),
    (
        "Stores",
        (
            "A store is a directory with `.awe` in it, made by awe-init(1). It is found from the working "
            "directory upward, as Git does, or through `AWE_PATH`, a list of stores separated by colons: reading "
            "sees all of them, writing goes to the first. Its index is a cache and can be deleted at any time. "
            "Without a store the programs work on files alone.",
        ),
    ),
    (
        "Choice of calibrations",
        (
            "A calibration that is not named is chosen from the stores. It serves a frame if the keys that its "
            "kind matches agree, its validity holds the start of the frame, nobody judged it bad, and it is not "
            "flagged or somebody judged it good. Of those that serve, an interval set by hand comes before a "
            "default one, then the nearest in nights, then the one made last. awe-why(1) lists every candidate "
            "with the reason for which it lost.",
            "A named calibration that does not match is refused (5). One that is flagged is refused too, unless "
            "`--accept-flags` is given, which goes on record, as do `--no-bias` and its like.",
        ),
    ),
    (
        "Quality",
        (
            "A product outside its limits is written, with its flags, a warning and exit code 0; the choice of "
            "calibrations passes it over. With `--strict` nothing is written and the exit code is 3. Limits of a "
            "camera or a survey are set in `awe.toml`, as `[bias.limits]` with `level_adu = [100, 400]`; an "
            "empty text for a bound leaves that side open.",
        ),
    ),
    (
        "Planes",
        (
            "An image product holds `SCI`, the pixels, in the primary HDU, and, where the kind has them, `WEIGHT`, "
            "the inverse variance of the background (0 where a pixel must not be used), and `MASK`, an integer of "
            "these bits: "
            + ", ".join(f"{int(bit)} {text}" for bit, text in BIT_NAMES.items())
            + ". Every bit but 64 and 1024 "
            "makes the weight 0. Calibrations and reduced frames are in ADU; a flat has mean 1 over the detector, "
            "so that after the division all amplifiers have one gain, the card `GAIN`.",
        ),
    ),
    (
        "Conditions",
        (
            "awe-query(1) and its like take words that must all hold. A word such as `night=2017-03-02` compares "
            "one field: `filter=R,V` is any of several, `object=M51*` a pattern, and `=` may also be `<>`, `<`, "
            "`<=`, `>` or `>=`. Any other word is an expression: `\"filter='R' and exptime_s > 10 and object "
            "like 'M51*'\"`, with `in`, `like` (`*` any text, `?` one character), `between`, `is null`, `and`, "
            "`or`, `not` and arithmetic. A comparison with a value that is missing does not hold. `chip` is "
            "another name of `detector`, and `date` of `night`.",
        ),
    ),
    (
        "Make",
        (
            "`--depfile FILE` writes the rule of a product, as a C compiler does, for `include` in a makefile. "
            "The time of a product changes only when it is written, or by `-u` when it is up to date and an "
            "input is newer, so that Make settles.",
        ),
    ),
    (
        "Coordinates and units",
        (
            "Pixel coordinates in options, tables and headers are those of FITS: the centre of the first pixel is "
            "1. Parameters and measures end in their unit: `_adu`, `_e`, `_s`, `_px`, `_arcsec`, `_deg`. Times "
            "are UTC; a night is the local date of its evening.",
        ),
    ),
)
