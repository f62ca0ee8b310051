"""Makes the pictures of the README from a run, with Chromium: `make pictures RUN=runs/demo` writes explorer.png and report.png."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

HERE = Path(__file__).resolve().parent
#: Width and height in CSS pixels.
SIZE = (1280, 720)
#: Colours of the files: the pages have few, so a palette halves the size and nobody sees it.
COLOURS = 128


def opened(chromium: Browser, address: str, size: tuple[int, int], ready: str) -> Page:
    """Returns a new page once the element `ready` is there."""
    page = chromium.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme="light")
    page.goto(address)
    page.wait_for_selector(ready)
    return page


def explore(page: Page) -> None:
    """Opens the first document of which the explorer asks whether its rule was right, beside the thresholds."""
    page.locator("#document ol li:nth-child(2) a").first.click()
    page.get_by_role("link", name="Thresholds").or_(page.get_by_role("button", name="Thresholds", exact=True)).first.click()


def save(page: Page, name: str) -> None:
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(2000)  # charts are drawn after that
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(HERE / name, optimize=True)
    print(f"{name}: {(HERE / name).stat().st_size / 1000:.0f} kB")


def main(run: Path) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("No Chromium here (Debian: apt install chromium).")
    command = [sys.executable, "-m", "corpusmill"]
    subprocess.run([*command, "report", str(run)], check=True, stdout=subprocess.DEVNULL)
    with subprocess.Popen([*command, "explore", str(run)], stdout=subprocess.PIPE, text=True) as server, sync_playwright() as play:
        assert server.stdout is not None
        try:
            address = next(found[0] for line in server.stdout if (found := re.search(r"http://127\S+", line)))
            chromium = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
            save(opened(chromium, (run / "report.html").resolve().as_uri(), SIZE, "h1"), "report.png")
            page = opened(chromium, address, SIZE, "table tbody tr")
            explore(page)
            save(page, "explorer.png")
            chromium.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
