"""A worker: a process that does what the control topics say, and says what it does.

=======================  ========================================================================================
``units.py``             what is scheduled of a deployment: one stage each, all its sources together
``rendezvous.py``        which workers host a unit: the same answer everywhere, and few moves when one goes
``reconcile.py``         what is desired, who lives, what runs here: what is to be done (pure)
``actor_host.py``        one unit in this process: started, restarted, drained, stopped
``topology_host.py``     what the units of one topology share in this process
=======================  ========================================================================================
"""
