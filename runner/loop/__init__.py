"""What every executor drives: training control, batches and their leases, schedule, clock, barriers.

No topology is known here, and no gradient is computed.
"""
