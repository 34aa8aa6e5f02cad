"""Run a script that imports timm where torchvision may not load its operators: `with_torchvision.py SCRIPT ARGS`."""

import runpy
import sys

from bas.extract.backbones.torchvision_compat import import_with_torchvision

import_with_torchvision("timm")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
