"""Python runs this first in what a launcher of the tests starts: it tells the process's number by its rank.

It also leaves out what coremltools would import and nobody here needs, seconds of work in each process.
"""

import os
import sys
from pathlib import Path

rank = os.environ.get("RANK", os.environ.get("PMI_RANK"))
if rank is not None:
    Path(os.environ["ANEX_TEST_FOLDER"], f"process.{rank}").write_text(str(os.getpid()))
if rank is not None or "ANEX_TEST_LEAN" in os.environ:
    sys.modules.update(dict.fromkeys(["sklearn", "transformers"] + (["torch"] if "RANK" not in os.environ else [])))
