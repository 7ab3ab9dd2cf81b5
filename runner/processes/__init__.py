"""Workers on real `torch.distributed` processes: how they meet, talk and watch each other, one file for each topology.

The virtual clock is in `simulated`; neither room imports the other.
"""
