"""`vmrnn doctor`: what runs here, and why the rest does not."""

from __future__ import annotations

from .options import DEBUG


def doctor(debug: bool = DEBUG) -> None:
    """Tell which devices and scan implementations work here, and why others do not."""
    import platform
    import subprocess

    import imageio_ffmpeg
    import torch

    from .. import __version__, scan, weights
    from ..devices import pick_device, pick_dtype
    from ..scan import native

    device = pick_device("auto")
    print(f"vmrnn {__version__}, Python {platform.python_version()} on {platform.platform()}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    lacking = "this PyTorch was built without it" if torch.version.cuda is None else "no GPU found"
    print(f"device: {device} ({torch.cuda.get_device_name() if torch.cuda.is_available() else f'no CUDA: {lacking}'})")
    try:
        print("ffmpeg:", imageio_ffmpeg.get_ffmpeg_version())
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"ffmpeg: missing ({error})")
    print("bundled weights:", ", ".join(weights.registry()) or "none", f"in {weights.bundled_folder()}")
    print("scan:")
    for backend in scan.BACKENDS:
        reason = scan.why_unavailable(backend, device)
        print(f"  {backend:<10} {'no: ' + reason if reason else 'yes'}")
    compiled = [name for name in native.INSTRUCTION_SETS if native.object_path(name).exists()]
    print(f"  native objects: {', '.join(compiled) or 'none'}", end="")
    if native.why_unavailable() is None:
        library = native.load()
        team = "PyTorch's OpenMP threads" if native._openmp_team() is not None else "Python threads"
        print(f" ({native.origin()}); this processor runs {library.instruction_set}, on {team}")
    else:
        print()
    chosen = scan.pick_backend("auto", device)
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    print(f"`vmrnn predict` will use {device}, {dtype}, scan {chosen}")
