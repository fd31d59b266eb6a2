"""Keep coremltools from importing what the command has no use for, so: ``import gpt2_lean`` before ``anex.mb``.

Where torch, transformers and others are installed, coremltools imports them for converters of its own: two seconds
and more than 200 MB. They cannot be imported in this process afterwards, unless they were there before.
"""

import sys

UNUSED = ("torch", "transformers", "tensorflow", "sklearn", "xgboost", "scipy")

for name in UNUSED:
    sys.modules.setdefault(name, None)  # type: ignore[arg-type]
