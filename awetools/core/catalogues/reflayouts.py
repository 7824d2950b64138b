"""What the columns of published catalogues are called, and which of ours each of them is.

A layout maps our names (`ra_deg`, `pm_ra_mas_yr`, `mag_V`, ...) to columns of a table and
the unit in which the table gives them where it does not say so itself. Names are
compared without regard to case. Column descriptions: the catalogues' ReadMe files at
the CDS (I/239, I/259, I/317, I/322A, I/345, I/355, II/183A, II/246, II/349, V/147), and
the data models of the archives of Gaia, MAST, IRSA and SDSS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import UnknownName, Unreadable, nearest
from ..sky.refcat import COLUMNS
from .reftables import RawTable


@dataclass(frozen=True)
class From:
    """A column of a table, and its unit; "" where the table must say it."""

    column: str
    unit: str = ""


@dataclass(frozen=True)
class Layout:
    """A known set of columns.

    marks: the columns that tell it from others, all of them. fields: ours by name; the
    first of several alternatives that the table has is taken. epoch_yr: of all
    positions, where no column says it. zero_missing: a 0 in a magnitude or motion stands
    for "not known". error_epochs: columns with the epochs at which the errors of RA and
    Dec hold; they grow from there to the epoch of the positions. colours: B, U, R and I are
    given as B-V, U-B, V-R and V-I. ask_equinox: nothing in such a table tells its equinox.
    """

    name: str
    marks: tuple[str, ...]
    fields: Mapping[str, tuple[From, ...]]
    epoch_yr: float | None = None
    zero_missing: bool = False
    error_epochs: tuple[str, str] | None = None
    colours: bool = False
    ask_equinox: bool = False


@dataclass(frozen=True)
class Mapped:
    """How one table is read: for each of ours, its column and unit; the layout.

    left_out: columns that could not be taken, and why. assumed: of ours, those whose unit
    neither the table nor its layout nor a person told.
    """

    fields: Mapping[str, From]
    layout: Layout
    left_out: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()


def _fields(**given: str) -> dict[str, tuple[From, ...]]:
    """From lines such as ra_deg="raMean:deg|ra:deg"."""
    return {name: tuple(_from(one) for one in text.split("|")) for name, text in given.items()}


def _from(text: str) -> From:
    column, _, unit = text.rpartition(":")
    return From(column, unit) if column else From(text)


def _bands(pairs: Mapping[str, str], error: str, unit: str = "mag") -> dict[str, tuple[From, ...]]:
    """Magnitudes by band from their columns; error: the name of an error's column, with {} for the magnitude's."""
    fields: dict[str, tuple[From, ...]] = {}
    for band, column in pairs.items():
        fields[f"mag_{band}"] = (From(column, "mag"),)
        fields[f"mag_error_{band}"] = (From(error.format(column), unit),)
    return fields


_VIZIER = _fields(
    ra_deg="RAJ2000:deg", dec_deg="DEJ2000:deg", pm_ra_mas_yr="pmRA:mas/yr", pm_dec_mas_yr="pmDE:mas/yr",
    pm_ra_error_mas_yr="e_pmRA:mas/yr", pm_dec_error_mas_yr="e_pmDE:mas/yr",
)  # fmt: skip
_GAIA_VIZIER = _VIZIER | _fields(
    ra_deg="RA_ICRS:deg", dec_deg="DE_ICRS:deg", ra_error_mas="e_RA_ICRS:mas", dec_error_mas="e_DE_ICRS:mas",
    epoch_yr="Epoch:yr", parallax_mas="Plx:mas", parallax_error_mas="e_Plx:mas", flags="Dup",
) | _bands({"G": "Gmag", "BP": "BPmag", "RP": "RPmag"}, "e_{}")  # fmt: skip
_2MASS_BANDS = {"J": "Jmag", "H": "Hmag", "K": "Kmag"}
_SDSS_BANDS = "ugriz"

KNOWN = (
    Layout(
        "Gaia archive", ("ra", "dec", "phot_g_mean_mag"),
        _fields(
            ra_deg="ra:deg", dec_deg="dec:deg", ra_error_mas="ra_error:mas", dec_error_mas="dec_error:mas",
            epoch_yr="ref_epoch:yr", pm_ra_mas_yr="pmra:mas/yr", pm_dec_mas_yr="pmdec:mas/yr",
            pm_ra_error_mas_yr="pmra_error:mas/yr", pm_dec_error_mas_yr="pmdec_error:mas/yr",
            parallax_mas="parallax:mas", parallax_error_mas="parallax_error:mas", flags="duplicated_source",
            mag_G="phot_g_mean_mag:mag", mag_BP="phot_bp_mean_mag:mag", mag_RP="phot_rp_mean_mag:mag",
            mag_error_G="phot_g_mean_mag_error:mag|phot_g_mean_flux_over_error:snr",
            mag_error_BP="phot_bp_mean_mag_error:mag|phot_bp_mean_flux_over_error:snr",
            mag_error_RP="phot_rp_mean_mag_error:mag|phot_rp_mean_flux_over_error:snr",
        ),
    ),
    Layout("Gaia DR3 (VizieR)", ("RA_ICRS", "DE_ICRS", "Gmag", "RUWE"), _GAIA_VIZIER, 2016.0),
    # As DR2, but also any table of both releases that leaves RUWE out: the epoch is not told.
    Layout("Gaia (VizieR)", ("RA_ICRS", "DE_ICRS", "Gmag"), _GAIA_VIZIER),
    Layout(
        "PS1 (MAST)", ("raMean", "decMean"),
        _fields(
            ra_deg="raMean:deg", dec_deg="decMean:deg", ra_error_mas="raMeanErr:arcsec",
            dec_error_mas="decMeanErr:arcsec", epoch_yr="epochMean:mjd",
        ) | _bands({band: f"{band}MeanPSFMag" for band in "grizy"}, "{}Err"),
    ),
    Layout(
        "PS1 (VizieR)", ("RAJ2000", "gmag", "zmag", "ymag"),
        _VIZIER | _fields(
            ra_error_mas="e_RAJ2000:arcsec", dec_error_mas="e_DEJ2000:arcsec", epoch_yr="Epoch:mjd",
        ) | _bands({band: f"{band}mag" for band in "grizy"}, "e_{}"),
    ),
    Layout(
        "2MASS (IRSA)", ("ra", "dec", "j_m", "h_m", "k_m"),
        _fields(
            ra_deg="ra:deg", dec_deg="dec:deg", ra_error_mas="err_maj:arcsec", dec_error_mas="err_maj:arcsec",
            epoch_yr="jdate:jd", mag_J="j_m:mag", mag_H="h_m:mag", mag_K="k_m:mag",
            mag_error_J="j_msigcom:mag|j_cmsig:mag", mag_error_H="h_msigcom:mag|h_cmsig:mag",
            mag_error_K="k_msigcom:mag|k_cmsig:mag",
        ),
    ),
    Layout(
        "UCAC4 (VizieR)", ("UCAC4", "RAJ2000", "pmRA"),
        _VIZIER | _fields(ra_error_mas="e_RAJ2000:mas", dec_error_mas="e_DEJ2000:mas")
        | _bands({"UCf": "f.mag", "UCa": "a.mag", **_2MASS_BANDS}, "e_{}")
        | _bands({band: f"{band}mag" for band in "BVgri"}, "e_{}", "cmag")
        | _fields(mag_error_UCf="e_a.mag:mag"),
        2000.0, error_epochs=("EpRA", "EpDE"),
    ),
    Layout(
        "PPMXL (VizieR)", ("PPMXL", "RAJ2000", "pmRA"),
        _VIZIER | _fields(ra_error_mas="e_RAJ2000:mas", dec_error_mas="e_DEJ2000:mas")
        | _bands(_2MASS_BANDS, "e_{}")
        | _fields(mag_B1="b1mag:mag", mag_B2="b2mag:mag", mag_R1="r1mag:mag", mag_R2="r2mag:mag", mag_I="imag:mag"),
        2000.0, error_epochs=("epRA", "epDE"),
    ),
    Layout(
        "2MASS (VizieR)", ("RAJ2000", "DEJ2000", "Jmag", "errMaj"),
        _VIZIER | _fields(ra_error_mas="errMaj:arcsec", dec_error_mas="errMaj:arcsec", epoch_yr="JD:jd")
        | _bands(_2MASS_BANDS, "e_{}"),
    ),
    Layout(
        "Tycho-2 (VizieR)", ("RAmdeg", "DEmdeg"),
        _VIZIER | _fields(
            ra_deg="RAmdeg:deg", dec_deg="DEmdeg:deg", ra_error_mas="e_RAmdeg:mas", dec_error_mas="e_DEmdeg:mas",
        ) | _bands({"BT": "BTmag", "VT": "VTmag"}, "e_{}"),
        2000.0, error_epochs=("EpRAm", "EpDEm"),
    ),
    Layout(
        "Tycho-2 (astrometry.net)", ("tyc1", "ra", "dec", "mag_vt"),
        _fields(
            ra_deg="ra:deg", dec_deg="dec:deg", ra_error_mas="sigma_ra:deg", dec_error_mas="sigma_dec:deg",
            epoch_yr="epoch_ra:yr", pm_ra_mas_yr="pm_ra:arcsec/yr", pm_dec_mas_yr="pm_dec:arcsec/yr",
            pm_ra_error_mas_yr="sigma_pm_ra:arcsec/yr", pm_dec_error_mas_yr="sigma_pm_dec:arcsec/yr",
            mag_BT="mag_bt:mag", mag_VT="mag_vt:mag", mag_Hp="mag_hp:mag",
        ),
        zero_missing=True,
    ),
    Layout(
        "SDSS (psfMag)", ("ra", "dec", "psfMag_r"),
        _fields(ra_deg="ra:deg", dec_deg="dec:deg", ra_error_mas="raErr:arcsec", dec_error_mas="decErr:arcsec",
                epoch_yr="mjd:mjd")
        | {f"mag_{band}": (From(f"psfMag_{band}", "mag"),) for band in _SDSS_BANDS}
        | {f"mag_error_{band}": (From(f"psfMagErr_{band}", "mag"),) for band in _SDSS_BANDS},
    ),
    Layout(
        "SDSS (CasJobs)", ("ra", "dec", "u", "g", "r", "i", "z"),
        _fields(ra_deg="ra:deg", dec_deg="dec:deg", ra_error_mas="raErr:arcsec", dec_error_mas="decErr:arcsec",
                epoch_yr="mjd:mjd")
        | {f"mag_{band}": (From(band, "mag"),) for band in _SDSS_BANDS}
        | {f"mag_error_{band}": (From(f"err_{band}", "mag"),) for band in _SDSS_BANDS},
    ),
    Layout(
        "SDSS (VizieR)", ("RA_ICRS", "DE_ICRS", "umag", "rmag"),
        _VIZIER | _fields(
            ra_deg="RA_ICRS:deg", dec_deg="DE_ICRS:deg", ra_error_mas="e_RA_ICRS:arcsec",
            dec_error_mas="e_DE_ICRS:arcsec", epoch_yr="ObsDate:yr",
        ) | _bands({band: f"{band}mag" for band in _SDSS_BANDS}, "e_{}"),
    ),
    Layout(
        "Landolt (VizieR)", ("RAJ2000", "DEJ2000", "Vmag", "B-V", "U-B", "V-R"),
        _VIZIER | _fields(
            mag_V="Vmag:mag", mag_B="B-V:mag", mag_U="U-B:mag", mag_R="V-R:mag", mag_I="V-I:mag",
            mag_error_V="e_Vmag:mag", mag_error_B="e_B-V:mag", mag_error_U="e_U-B:mag", mag_error_R="e_V-R:mag",
            mag_error_I="e_V-I:mag",
        ),
        colours=True,
    ),
    Layout(
        "Landolt (IRAF)", ("2", "3", "4", "17"),
        _fields(
            ra_deg="2:deg", dec_deg="3:deg", mag_V="4:mag", mag_B="5:mag", mag_U="6:mag", mag_R="7:mag",
            mag_I="9:mag", mag_error_V="12:mag", mag_error_B="13:mag", mag_error_U="14:mag", mag_error_R="15:mag",
            mag_error_I="17:mag",
        ),
        colours=True, ask_equinox=True,
    ),
    Layout(
        "SExtractor", ("ALPHA_J2000", "DELTA_J2000"),
        _fields(
            ra_deg="ALPHAWIN_J2000:deg|ALPHA_J2000:deg", dec_deg="DELTAWIN_J2000:deg|DELTA_J2000:deg",
            ra_error_mas="ERRX2WIN_WORLD:deg2|ERRX2_WORLD:deg2", dec_error_mas="ERRY2WIN_WORLD:deg2|ERRY2_WORLD:deg2",
            mag_AUTO="MAG_AUTO:mag", mag_error_AUTO="MAGERR_AUTO:mag", mag_APER="MAG_APER:mag",
            mag_error_APER="MAGERR_APER:mag", mag_ISOCOR="MAG_ISOCOR:mag", mag_error_ISOCOR="MAGERR_ISOCOR:mag",
        ),
    ),
    *(
        Layout(
            f"SCAMP ({x})", (x, x.replace("X", "Y", 1)),
            _fields(
                ra_deg=f"{x}:deg", dec_deg=x.replace("X", "Y", 1) + ":deg",
                ra_error_mas="ERRAWIN_WORLD:deg|ERRA_WORLD:deg", dec_error_mas="ERRBWIN_WORLD:deg|ERRB_WORLD:deg",
                epoch_yr="OBSDATE:yr", pm_ra_mas_yr="PMALPHA_J2000:mas/yr", pm_dec_mas_yr="PMDELTA_J2000:mas/yr",
                pm_ra_error_mas_yr="PMALPHAERR_J2000:mas/yr", pm_dec_error_mas_yr="PMDELTAERR_J2000:mas/yr",
                mag_MAG="MAG:mag|MAG_AUTO:mag", mag_error_MAG="MAGERR:mag|MAGERR_AUTO:mag",
            ),
        )
        for x in ("XWIN_WORLD", "X_WORLD")
    ),
)  # fmt: skip

# For tables of no known set. Units of what is measured are not guessed: the table or a person must say them.
_ANY_RA = (
    "ra_deg",
    "ra",
    "raj2000",
    "ra_icrs",
    "ra_j2000",
    "radeg",
    "alpha",
    "alpha_j2000",
    "_raj2000",
    "_ra",
)
_ANY_DEC = (
    "dec_deg", "dec", "dej2000", "de_icrs", "dec_j2000", "dedeg", "delta", "delta_j2000", "_dej2000", "_de", "de",
    "decj2000", "dec_icrs", "decdeg", "_decj2000",
)  # fmt: skip
_ANY = {
    "ra_error_mas": ("ra_error", "e_ra", "e_raj2000", "ra_err", "raerr", "sigma_ra"),
    "dec_error_mas": ("dec_error", "e_dec", "e_de", "e_dej2000", "dec_err", "decerr", "sigma_dec"),
    "epoch_yr": ("epoch", "ref_epoch", "obsdate"),
    "pm_ra_mas_yr": ("pmra", "pm_ra"),
    "pm_dec_mas_yr": ("pmdec", "pm_dec", "pmde"),
    "pm_ra_error_mas_yr": ("e_pmra", "pmra_error", "pm_ra_error"),
    "pm_dec_error_mas_yr": ("e_pmdec", "e_pmde", "pmdec_error", "pm_dec_error"),
    "parallax_mas": ("parallax", "plx"),
    "parallax_error_mas": ("parallax_error", "e_plx"),
}
_BAND_NAMES = frozenset([*"ugrizyUBVRIJHKG", "BP", "RP", "BT", "VT", "Hp", "Ks", "W1", "W2", "Rc", "Ic"])
_MAGNITUDE = re.compile(r"(?:mag_(?P<a>\w{1,8})|(?P<b>\w{1,8}?)_?mag|(?P<c>mag))", re.IGNORECASE)
_ERROR_OF = ("e_{}", "{}_error", "{}_err", "{}err", "err_{}", "e{}", "sigma_{}", "{}_sigma")
_OUR_NAME = re.compile(r"mag(?:_error)?_[A-Za-z]\w{0,15}")
IRAF_COLUMNS = (17, 18)


def mapped(
    table: RawTable, given: Mapping[str, str] | None = None, units: Mapping[str, str] | None = None
) -> Mapped:
    """Which columns of a table are which of ours.

    given: columns named by a person, by our name; they go before those of a known set. units:
    likewise, of our names; they go before what the table says. Raises UnknownName, and
    Unreadable where RA or Dec is not found.
    """
    given, units = dict(given or {}), dict(units or {})
    for name in (*given, *units):
        if name not in COLUMNS and not _OUR_NAME.fullmatch(name):
            known = [*COLUMNS, "mag_BAND", "mag_error_BAND"]
            raise UnknownName(
                f"a catalogue has no column {name!r}{nearest(name, known)}; it has {', '.join(known)}"
            )
    have = {name.casefold(): name for name in reversed(table.names)}
    for column in given.values():
        if column.casefold() not in have:
            near = nearest(column, list(table.names))
            raise UnknownName(f"{table.where}: no column {column!r}{near}; it has {_listed(table.names)}")
    layout = _layout_of(table, have)
    fields, left_out, assumed = {}, [], []
    taken = {column.casefold() for column in given.values()}
    others = {
        name: tuple(one for one in choices if one.column.casefold() not in taken)
        for name, choices in layout.fields.items()
    }
    chosen = {**others, **{name: (From(column),) for name, column in given.items()}}
    for name, choices in chosen.items():
        choice = next((one for one in choices if one.column.casefold() in have), None)
        if choice is None:
            continue
        column = have[choice.column.casefold()]
        told = units.get(name) or _spoken(table.units.get(column, "")) or choice.unit
        unit = told or _evident(name)
        if not told:
            assumed.append(name)
        if not unit:
            left_out.append(f"{column}: its unit is not told (it may be {name})")
            continue
        fields[name] = From(column, unit)
    for name in ("ra_deg", "dec_deg"):
        if name not in fields:
            raise Unreadable(
                f"{table.where}: no column of positions is known among {_listed(table.names)}",
                hint="--column ra_deg=THEIRS --column dec_deg=THEIRS",
            )
    # An error alone says nothing.
    lone = [name for name in fields if name.startswith("mag_error_") and f"mag_{name[10:]}" not in fields]
    return Mapped(
        {name: one for name, one in fields.items() if name not in lone},
        layout,
        tuple(left_out),
        tuple(assumed),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (f" and {len(names) - 40} more" if len(names) > 40 else "")


def _spoken(unit: str) -> str:
    """The unit that a table tells; not what says nothing."""
    return "" if unit.strip().casefold() in ("", "-", "---", "none", "unknown", "log") else unit


def _evident(name: str) -> str:
    """What is meant where nothing is said: degrees for positions, years, magnitudes; nothing for the others."""
    if name in ("ra_deg", "dec_deg"):
        return "deg"
    if name.startswith("mag_"):
        return "mag"
    return {"epoch_yr": "yr", "flags": "flag"}.get(name, "")


def _layout_of(table: RawTable, have: Mapping[str, str]) -> Layout:
    if table.nameless and len(table.names) not in IRAF_COLUMNS:
        return Layout("columns without names", (), {})
    for layout in KNOWN:
        if (
            all(mark.casefold() in have for mark in layout.marks)
            and table.nameless == layout.marks[0].isdigit()
        ):
            return layout
    return _any_layout(have)


def _any_layout(have: Mapping[str, str]) -> Layout:
    """By what is usual in names; our own names above all."""
    fields: dict[str, tuple[From, ...]] = {
        "ra_deg": tuple(From(one) for one in _ANY_RA),
        "dec_deg": tuple(From(one) for one in _ANY_DEC),
        **{name: tuple(From(one) for one in (name, *others)) for name, others in _ANY.items()},
    }
    ours = ("ra_error_mas", "dec_error_mas", "pm_ra_mas_yr", "pm_dec_mas_yr", "parallax_mas", "epoch_yr")
    endings = {"_mas_yr": "mas/yr", "_mas": "mas", "_yr": "yr"}
    for name in (*ours, "pm_ra_error_mas_yr", "pm_dec_error_mas_yr", "parallax_error_mas"):
        unit = next(unit for ending, unit in endings.items() if name.endswith(ending))
        fields[name] = (From(name, unit), *fields[name])
    for folded, column in have.items():
        found = _MAGNITUDE.fullmatch(column)
        band = column if column in _BAND_NAMES else found and (found["a"] or found["b"] or "MAG")
        if not band or not re.fullmatch(r"[A-Za-z]\w*", band) or band.casefold() in ("error", "err", "e"):
            continue
        if re.match(r"(?:e|err|error|sigma)_", band, re.IGNORECASE):
            continue
        fields[f"mag_{band}"] = (From(column),)
        errors = [one.format(folded).casefold() for one in _ERROR_OF]
        errors += [f"mag_error_{band}".casefold(), f"magerr_{band}".casefold()] + ["magerr"] * (band == "MAG")
        error = next((have[one] for one in errors if one in have), None)
        if error is not None:
            fields[f"mag_error_{band}"] = (From(error),)
    return Layout("names as usual", (), fields)
