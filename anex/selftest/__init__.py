"""``anex selftest``: what this machine's Neural Engine does, beside the CPU engine and what is published."""
