"""The original program's commands: ``python -m smoothout.original PROGRAM ...`` takes its flags and calls ours.

``options`` is the table of its flags; ``programs`` turns them into a command of ours.
"""
