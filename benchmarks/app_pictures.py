"""Make the pictures of docs/app.md: the tests of the page take them, this crops and shrinks them.

    python benchmarks/app_pictures.py [--out docs/images/app]

It needs what the tests need: the extra `dev`, and Chromium.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
TEST = "tests/web/test_browser_edits.py"
# What is shown, and the test that takes it.
PICTURES = {
    "objects": "test_objects_of_clicks_and_phrases_make_one_list",
    "painted-object": "test_a_mask_is_painted_and_erased",
}
# Of the page, 1280 pixels wide: what a window shows without scrolling.
WINDOW = (0, 0, 1280, 900)
WIDTH = 1000


def main() -> None:
    """Parse the arguments and write the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images" / "app")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        tests = [f"{TEST}::{test}" for test in PICTURES.values()]
        command = [sys.executable, "-m", "pytest", "-q", *tests]
        environment = {**os.environ, "PROMPTSEG_SCREENSHOTS": folder}
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        for name in PICTURES:
            with Image.open(Path(folder) / f"{name}-wide.png") as page:
                window = page.convert("RGB").crop(WINDOW)
            height = round(window.height * WIDTH / window.width)
            small = window.resize((WIDTH, height), Image.Resampling.LANCZOS)
            small.save(out / f"{name}.jpg", quality=85, optimize=True)
            print(out / f"{name}.jpg")


if __name__ == "__main__":
    main()
