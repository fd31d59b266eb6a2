"""The README's example does what the README says."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_example_prints_what_stands_below_it():
    code, output = re.search(r"```python\n(.*?)```\n\nprints\n\n```\n(.*?)```", README, re.DOTALL).groups()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == output
    assert done.stderr == ""


def test_every_public_name_of_the_table_exists():
    import anex

    for name in re.findall(r"anex\.(?!h\b|Program\b)([a-z_]+(?:\.[a-z_]+)?)\(", README):
        found = anex
        for part in name.split("."):
            found = getattr(found, part)
        assert callable(found)
