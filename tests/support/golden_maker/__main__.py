"""Reads the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from . import __doc__ as about
from .magiclens import make_magiclens
from .phi3_vision import make_phi3_vision
from .visualized_bge import make_visualized_bge

parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path, help="made if it does not exist")
parser.add_argument("--seed", type=int, default=1, help="of weights and pictures")
options = parser.parse_args()
torch.set_num_threads(1)  # small models lose more by threads than they gain
make_visualized_bge(options.folder / "visualized_bge", options.seed)
make_phi3_vision(options.folder / "phi3_vision", options.seed)
make_magiclens(options.folder / "magiclens", options.seed)
