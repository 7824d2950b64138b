"""Import many foreign files in one run: plan each, decide, make what is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .batch import Failure, Mode, Outcome
from .build import How, Loader, build
from .errors import Mixture, NotUpToDate, UsageError
from .files import parse_address
from .foreign import Given, file_name_of, plans_of, product_stem
from .kind import Kind
from .parallel import run_forked
from .planning.differences import Reason
from .planning.plan import Plan, decide, refuse_foreign, target_of
from .publish import check_depfile, finish_rename, set_time, write_depfile
from .store import PRODUCT_ENDINGS
from .workspace import Workspace


@dataclass(frozen=True)
class ImportRequest:
    """One run of awe-import, as the person asked for it."""

    kind: Kind
    addresses: Sequence[str]
    workspace: Workspace
    given: Given
    output: Path | None = None
    out_dir: Path | None = None
    mode: Mode = "make"
    update: bool = False
    how: How = field(default_factory=How)
    processes: int = 1


def run_imports(request: ImportRequest) -> Iterator[Outcome | Failure]:
    """Import every file of a request, in its order; a failure stays with its file."""
    _check(request)

    def work(number: int) -> list[Outcome]:
        return _imported(request, request.addresses[number])

    results = run_forked(work, len(request.addresses), request.processes)
    for name, result in zip(request.addresses, results, strict=True):
        if isinstance(result, Exception):
            yield Failure(name, result)
        else:
            yield from result


def _check(request: ImportRequest) -> None:
    count = len(request.addresses)
    if request.output is not None and request.output.suffix.lower() not in PRODUCT_ENDINGS:
        raise UsageError(
            f"-o {request.output}: a product is plain FITS, so its name must end in .fits, .fit or .fts"
        )
    if request.output is not None and count > 1:
        raise UsageError(f"-o names one product, but there are {count} inputs", hint="--out-dir DIR")
    for role in ("weight", "mask"):
        wanted = getattr(request.given, role)
        if count > 1 and wanted and parse_address(wanted).path.is_file():
            raise UsageError(
                f"--{role} {wanted} is one file, but there are {count} images",
                hint="an extension's name, or one run for each image",
            )
    if request.out_dir is not None:
        _refuse_one_name(request.addresses)


def _refuse_one_name(addresses: Sequence[str]) -> None:
    """Raise UsageError if products of two files would have one name, so that the second would replace the first."""
    paths: dict[str, Path] = {}
    for path in (parse_address(text).path for text in addresses):
        other = paths.setdefault(product_stem(path.name), path)
        if other != path:
            raise UsageError(
                f"{other} and {path} would both become {product_stem(path.name)}.fits",
                hint="one --out-dir for each",
            )


def _imported(request: ImportRequest, name: str) -> list[Outcome]:
    planned = list(plans_of(request.kind, parse_address(name), request.given, request.workspace))
    if request.output is not None and len(planned) > 1:
        first = planned[0][0].inputs[0].source.address
        raise Mixture(
            f"{name}: holds {len(planned)} images",
            hint=f"--out-dir DIR, or one of them: {first}; see --weight",
        )
    return [_decided(request, plan, problems) for plan, problems in planned]


def _decided(request: ImportRequest, plan: Plan, problems: Sequence[str]) -> Outcome:
    target, store = target_of(plan, request.output, request.out_dir, request.workspace, file_name_of)
    _refuse_input_as_output(plan, target)
    if request.how.depfile is not None:
        check_depfile(request.how.depfile, target, plan)
    reasons = tuple(decide(plan, target))
    if request.mode != "make":
        return _answer(request.mode, target, reasons)
    if request.update and not reasons:
        set_time(target, [one.source.address.path for one in plan.inputs])
        if request.how.depfile is not None:
            write_depfile(request.how.depfile, target, plan)
        return Outcome(target, "up-to-date")
    if not request.how.force:
        finish_rename(target)
        refuse_foreign(target)
    published = build(plan, target, store, request.how, Loader())
    said = [f"{plan.inputs[0].source.address}: {text}" for text in (*problems, *published.notes)]
    return Outcome(target, "made", reasons, published.warnings, tuple(said), published.record)


def _answer(mode: Mode, target: Path, reasons: tuple[Reason, ...]) -> Outcome:
    if mode == "check" and reasons:
        texts = "; ".join(f"{reason.name} ({reason.detail})" for reason in reasons)
        raise NotUpToDate(f"{target}: {texts}")
    return Outcome(target, "would-make" if reasons else "up-to-date", reasons)


def _refuse_input_as_output(plan: Plan, target: Path) -> None:
    for one in plan.inputs:
        if target.exists() and target.samefile(one.source.address.path):
            raise UsageError(f"{target}: is an input and cannot be the output too")
