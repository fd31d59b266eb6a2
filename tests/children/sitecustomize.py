"""Python runs this at its start in processes that tests start (tests/conftest.py puts it on their path).

coremltools imports torch and scikit-learn, to be ready for models of theirs, in 3 of the 4 seconds that it takes to
import. Here it finds neither; everybody else does. A test whose process converts torch modules leaves this out.
"""

import sys

UNSEEN = ("torch", "sklearn")


class Unseen:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in UNSEEN:
            asking = getattr(sys.modules.get("coremltools._deps"), "__spec__", None)
            if getattr(asking, "_initializing", False):
                raise ModuleNotFoundError(f"{name} is not for coremltools here: see {__file__}", name=name)


sys.meta_path.insert(0, Unseen)
