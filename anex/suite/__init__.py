"""``anex bench all``: trainings, probes and benchmarks in one run, and what is made of its reports.

``outcome`` is what one of them comes to, ``playing`` runs them, ``writing`` keeps the text and the JSON report,
``gate`` compares two reports, ``community`` merges those of several machines, ``gallery`` draws.
"""
