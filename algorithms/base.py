"""What a method needs, in one place: the protocols between methods and whatever executes them.

A method is written once, as tensor code on flat vectors, and runs unchanged on the simulated cluster and on real
processes. It never sees a network, a data set or a clock: it asks an `Oracle` for gradients and answers with messages.
There are four ways to communicate, each with a protocol:

    algorithms.parameter_server    workers pull, compute and push whenever they are ready; the server handles one
                                   message at a time
    algorithms.collective          all workers take a local step; what they contribute is averaged or gathered, and
                                   every worker applies the combination
    algorithms.shared_memory       all workers write to one vector of weights, without a lock
    algorithms.pipeline            each worker has a module of the network

To add a method, subclass one of them, implement its abstract methods, and write `conf/algorithm/<name>.yaml` with
the class as `_target_`. Greek letters are spelled as the papers do: `lambda0`, `tau` (staleness), `eta` (learning
rate).
"""

from algorithms.checks import flag as flag
from algorithms.checks import in_range as in_range
from algorithms.checks import integer as integer
from algorithms.checks import one_of as one_of
from algorithms.checks import positive as positive
from algorithms.collective import Collective as Collective
from algorithms.collective import CommunicationSchedule as CommunicationSchedule
from algorithms.method import Cost as Cost
from algorithms.method import Field as Field
from algorithms.method import Fields as Fields
from algorithms.method import Layer as Layer
from algorithms.method import Message as Message
from algorithms.method import Stateful as Stateful
from algorithms.method import Step as Step
from algorithms.method import field_of as field_of
from algorithms.method import message_bytes as message_bytes
from algorithms.method import zeros as zeros
from algorithms.oracle import Batch as Batch
from algorithms.oracle import Oracle as Oracle
from algorithms.oracle import Problem as Problem
from algorithms.oracle import Rows as Rows
from algorithms.oracle import shard_range as shard_range
from algorithms.parameter_server import Layout as Layout
from algorithms.parameter_server import ParameterServer as ParameterServer
from algorithms.parameter_server import Round as Round
from algorithms.parameter_server import Worker as Worker
