"""The whole night: plans it, makes every frame in one or more processes, and writes what is true of it."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadValue, Unavailable
from . import sky
from .camera import INSTRUMENT, Detector, make_detector
from .frames import Made, make_frame, make_maps
from .output import make_folders, read_map, remove_unfinished, write_csv, write_json, write_table
from .plan import SITE_LATITUDE_DEG, SITE_LONGITUDE_DEG, Exposure, decimal_year, field_centre_deg, plan_night
from .render import MOFFAT_BETA
from .spec import FILTERS, ORIGIN, NightSpec

Progress = Callable[[int, int], None]
Task = tuple[Path, NightSpec, int, Exposure | None]
MapTasks = Callable[[Sequence[Task]], Iterable[Made]]


@dataclass(frozen=True)
class Summary:
    """What a night holds: the raw frames in order, how many of each type, sources, references, bytes."""

    directory: Path
    raw: tuple[Path, ...]
    counts: Mapping[str, int]
    sources: int
    references: int
    bytes_written: int


def simulate_night(
    directory: Path, night: NightSpec, processes: int = 1, progress: Progress | None = None
) -> Summary:
    """Write a simulated night and its truth into a new or empty directory.

    progress is called with the number of frames made and of all frames. The same
    night gives the same bytes, however many processes make it. run.json is
    written last: where it is, the night is complete. Raises BadValue,
    WouldOverwrite, Unavailable.
    """
    if processes < 1:
        raise BadValue(f"processes = {processes} ({ORIGIN}): must be at least 1")
    plan = plan_night(night)
    make_folders(directory)
    try:
        return _write_night(directory, night, plan, processes, progress)
    except BaseException:
        remove_unfinished(directory)
        raise
    finally:
        read_map.cache_clear()


def _write_night(
    directory: Path, night: NightSpec, plan: tuple[Exposure, ...], processes: int, progress: Progress | None
) -> Summary:
    catalogue = sky.make_catalogue(night)
    reference = sky.make_reference(night, catalogue)
    written = write_table(directory / "truth" / "catalog.fits", "TRUTH", catalogue, sky.units_of(catalogue))
    written += write_table(directory / "reference.fits", "REFERENCE", reference, sky.units_of(reference))

    places = range(night.detectors)
    # One detector's frames of one filter follow each other: their maps are read once.
    frames: list[Task] = [
        (directory, night, index, shot)
        for index in places
        for shot in sorted(plan, key=lambda one: (one.filter, one.number))
    ]
    rows: list[dict[str, Any]] = []
    with _workers(min(processes, max(1, len(frames)))) as run:
        written += sum(
            made.bytes_written for made in run([(directory, night, index, None) for index in places])
        )
        for done, made in enumerate(run(frames), 1):
            written += made.bytes_written
            rows += [made.row] if made.row else []
            if progress:
                progress(done, len(frames))

    rows.sort(key=lambda row: (row["number"], night.detector_names.index(row["detector"])))
    written += write_csv(directory / "frames.csv", rows)
    written += write_json(directory / "run.json", describe(night, plan, len(catalogue), len(reference)))
    return Summary(
        directory=directory,
        raw=tuple(directory / row["file"] for row in rows),
        counts=dict(Counter(row["obstype"] for row in rows)),
        sources=len(catalogue),
        references=len(reference),
        bytes_written=written,
    )


def describe(night: NightSpec, plan: tuple[Exposure, ...], sources: int, references: int) -> dict[str, Any]:
    """Everything that is true of a night but not a map or table, for run.json."""
    ra, dec = field_centre_deg(night)
    return {
        "parameters": dataclasses.asdict(night),
        "camera": {
            "instrument": INSTRUMENT,
            "site_longitude_deg": SITE_LONGITUDE_DEG,
            "site_latitude_deg": SITE_LATITUDE_DEG,
            "gap_px": night.gap_px,
            "detectors": [_detector(make_detector(night, index)) for index in range(night.detectors)],
        },
        "sky": {
            "centre_ra_deg": ra,
            "centre_dec_deg": dec,
            "epoch_yr": decimal_year(night),
            "reference_epoch_yr": sky.REFERENCE_EPOCH_YR,
            "moffat_beta": MOFFAT_BETA,
            "sources": sources,
            "references": references,
        },
        "filters": {name: dataclasses.asdict(FILTERS[name]) for name in night.filters},
        "exposures": [_exposure(shot) for shot in plan],
    }


def _detector(detector: Detector) -> dict[str, Any]:
    told = dataclasses.asdict(detector) | {"saturate_adu": detector.saturate_adu}
    for amplifier, known in zip(told["amplifiers"], detector.amplifiers, strict=True):
        amplifier["read_noise_adu"] = known.read_noise_adu
        amplifier["nonlinear_adu"] = known.nonlinear_adu
    return told


def _exposure(shot: Exposure) -> dict[str, Any]:
    told = dataclasses.asdict(shot)
    told["start"] = shot.start.isoformat(timespec="milliseconds")
    if shot.conditions:
        told["conditions"]["true_deg"] = shot.conditions.true_deg
    return {key: value for key, value in told.items() if value is not None}


def _do(task: Task) -> Made:
    directory, night, index, shot = task
    return make_maps(directory, night, index) if shot is None else make_frame(directory, night, index, shot)


@contextmanager
def _workers(processes: int) -> Iterator[MapTasks]:
    """Something that does tasks, in this process or in several, and yields what was made in any order."""
    if processes == 1:
        yield lambda tasks: map(_do, tasks)
        return
    with warnings.catch_warnings():
        # Python warns of forking beside threads; those here are idle ones of numerical libraries.
        warnings.filterwarnings("ignore", message=".*fork", category=DeprecationWarning)
        fork = multiprocessing.get_context("fork")
        executor = ProcessPoolExecutor(processes, mp_context=fork, initializer=_start_worker)
        try:
            yield lambda tasks: _completed(executor, tasks)
        except BrokenProcessPool:
            raise Unavailable("a worker process ended by itself (out of memory?)") from None
        finally:
            # After an exception, Ctrl-C too, only the frames that are being made are finished.
            executor.shutdown(cancel_futures=True)


def _completed(executor: ProcessPoolExecutor, tasks: Sequence[Task]) -> Iterator[Made]:
    for future in as_completed([executor.submit(_do, task) for task in tasks]):
        yield future.result()


def _start_worker() -> None:
    """An interrupt is the parent's business; being terminated, or left without a parent, means to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
