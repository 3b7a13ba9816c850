"""Lets the tests of this folder, and the long ones, import `pictures`, which draws what they read."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
