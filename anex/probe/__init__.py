"""Questions to a device, each answered by running something and checking the numbers against a reference.

``record`` says what a probe is, ``questions/`` holds them, ``session`` compiles and times, ``anex.answers`` keeps
the answers of a machine. What is asked message by message of the private framework alone is in ``anex.selftest``.
"""
