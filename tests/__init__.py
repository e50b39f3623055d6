"""The tests of Ops Framework. `python3 -m unittest` in the checkout runs them all.

`from tests import ops` is the script as a module: its file name has a hyphen,
so an import statement cannot name it.
"""

import importlib.util
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "ops-monitor.py"
NOON = f"NOON{time.gmtime().tm_hour - 12:+d}"  # the time zone in which it is about noon: far from everybody's quiet hours
os.environ["TZ"] = NOON
time.tzset()


def _load_script():
    spec = importlib.util.spec_from_file_location("ops_monitor", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ops = _load_script()
