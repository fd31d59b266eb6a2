"""Every published benchmark as one command, with the published figures beside ours.

``record`` says what a benchmark is, ``tables/`` holds them, ``programs`` builds what they time, ``running`` times it,
``text`` prints it.
"""
