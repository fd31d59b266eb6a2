"""What a program will take on a Neural Engine: predicted, never measured.

``work`` says what is counted, ``rows`` and ``program`` count it in published measurements and in MIL
programs, ``physics`` turns it into milliseconds, ``kriging`` corrects those by what was measured near by,
``model`` holds the fitted numbers (``data/fitted.json``, which ``calibrate`` writes from a CSV).
"""
