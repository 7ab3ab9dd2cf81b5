"""What one worker computes: gradients, evaluations and diagnostics of a network.

Who asks for them, and when, is not known here.
"""
