"""Run the notebook from top to bottom, as a reader would, and say how long it took.

python docs/run_notebook.py
        runs it; an error in a cell is an error here
python docs/run_notebook.py --write
        also keeps what it printed and drew, for those who read it without running it

Needs the extra "docs". The kernel is reached over a socket file, not over the network.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

NOTEBOOK = Path(__file__).parent.parent / "examples" / "composed_image_retrieval.ipynb"


def run(*, write: bool) -> None:
    """Run the notebook in an empty folder, and keep its outputs if asked to."""
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        socket = Config(ConnectionFileMixin={"transport": "ipc", "ip": f"{folder}/kernel"})
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, config=socket, resources=resources, record_timing=False).execute()
    sys.stdout.write(f"{NOTEBOOK.name} ran in {time.monotonic() - started:.0f} s.\n")
    if write:
        for cell in notebook.cells:
            if cell.cell_type == "code":  # progress bars and warnings are no results
                cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
        notebook.metadata.language_info = {"name": "python"}  # the version is this machine's
        nbformat.write(notebook, NOTEBOOK)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="keep the outputs in the notebook")
    run(write=parser.parse_args().write)


if __name__ == "__main__":
    main()
