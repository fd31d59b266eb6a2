"""What the command knows before anything is loaded."""

DEVICES = ("ane", "cpu-ane", "cpu", "cpu-strict", "coreml")
REFERENCES = ("cpu-fp32", "cpu-strict", "torch", "coreml")
OK, DIFFERS, NOT_RESIDENT, UNREADABLE = 0, 1, 3, 4  # exit codes; 2 is a command line that nobody understands
