"""The background services of one data folder: broker, memory server, model server.

``service_set`` is the face; ``state`` is what ``up.json`` holds; ``launch`` starts one process, ``processes`` knows
whether one still lives, ``ports`` chooses where it listens, ``lock`` lets one program at a time change the set.
"""
