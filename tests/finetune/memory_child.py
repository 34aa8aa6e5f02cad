"""Run by the tests of memory in a process of its own: the command line with little memory.

memory_child.py MIB ARGUMENT...
    What the libraries take is not counted.
"""

import resource
import sys
from pathlib import Path

import torch

import bas.finetune.loop  # noqa: F401 (loads the libraries)
from bas.cli import main
from bas.extract.backbones.torchvision_compat import import_with_torchvision

if __name__ == "__main__":
    import_with_torchvision("pytorchvideo.models.x3d")
    torch.set_num_threads(1)
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = used_bytes + int(sys.argv[1]) * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.argv = ["bas", *sys.argv[2:]]
    main()
