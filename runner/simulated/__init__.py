"""Workers on a virtual clock, one file for each topology.

Real processes are in `processes`; neither room imports the other.
"""
