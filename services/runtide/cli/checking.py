"""`runtide verify`: what was declared against what is stored, as plain values and as tables."""

from __future__ import annotations

import dataclasses
from typing import Any

from runtide.cli.store import RunKey
from runtide.cli.tables import print_table
from runtide.warehouse.client import Client
from runtide.warehouse.verify import verify_run
