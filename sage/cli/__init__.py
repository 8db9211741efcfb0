"""The command line: arguments in, rendered answers out. What the verbs do stands in ``sage.operations``.

``verbs`` is the table of all verbs, ``main`` finds one and turns errors into exit codes, ``terminal`` writes,
``commands/`` holds one function per verb.
"""
