"""The control plane: what shall run, on compacted topics, and the workers that make it so.

Nothing here is a command that is sent to somebody. A deployer writes what is desired; each worker reads it, compares it
with what it does, and goes there (``reconcile``); what it does it says in its status. So every verb works from every
machine that reaches the brokers, and a worker that was away for an hour needs nobody to repeat anything.

=====================  ==========================================================================================
``names.py``           the control topics, under one prefix
``deployment.py``      an immutable compiled plan with its version; key ``name@version``
``desired.py``         the pointer: which version, in which state, how wide; key ``name``
``status.py``          what a worker says of itself and of each topology that it hosts
=====================  ==========================================================================================
"""
