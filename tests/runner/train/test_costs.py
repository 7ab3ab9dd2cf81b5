from runner.train.build import build_run
from runner.train.components import RunComponents
from runner.train.costs import collective_costs, memory_costs, pipeline_costs, server_costs
from tests.trial import compose

# 64 x 8 + 8 weights of the first layer, 8 x 10 + 10 of the second.
SMALL = ("model=mlp", "model.widths=[8]", "dataset.limit_train=64", "run.batch_size=4", "cluster.workers=3")
N = 64 * 8 + 8 + 8 * 10 + 10


def components(*overrides: str) -> RunComponents:
    return build_run(compose(*SMALL, *overrides))


def test_server_copies_what_it_does_not_keep():
    """A backup that the method keeps is in its state already."""
    plain, kept = (server_costs(components(f"algorithm={name}")) for name in ("asgd", "dc_asgd_a"))
    assert (plain.copies, kept.copies) == (3 * N, 0)
    assert plain.traffic == kept.traffic == 2 * N
    assert plain.gradient > 0
    assert plain.update > 0


def test_what_halves_keep_is_counted():
    slim, compressed = (server_costs(components(f"algorithm={name}")) for name in ("dana_slim", "ef_asgd"))
    # What was pulled, with a rate in double precision, and what a half keeps; a push is a bit an element, and a number.
    assert (slim.copies, compressed.copies) == (3 * 2 * N, 3 * (2 * N + 2))
    assert (slim.traffic, compressed.traffic) == (2 * N, N + 2 + (4 + (N + 7) // 8) // 4)


def test_replicas_are_copies_unless_alike():
    alike, apart = (collective_costs(components(f"algorithm={name}")) for name in ("ssgd", "local_sgd"))
    assert alike.copies == 0
    assert apart.copies >= 2 * N
    assert alike.traffic == apart.traffic == 2 * N


def test_a_message_goes_to_and_comes_from_each_neighbour():
    graph = ("algorithm=d_psgd", "algorithm.graph=[[0,1],[1,2]]", "algorithm.momentum=0.9")
    costs = collective_costs(components(*graph))
    assert costs.traffic == 2 * 2 * N
    # The other workers' weights, velocities, and gradients that wait for the average.
    assert costs.copies == 2 * 3 * N


def test_shared_memory_counts_written_coordinates():
    costs = memory_costs(components("algorithm=hogwild", "algorithm.coordinates=5"))
    assert (costs.copies, costs.traffic) == (3 * N, N + 5)


def test_modules_send_their_outputs():
    costs = pipeline_costs(components("algorithm=bp", "cluster.workers=2"))
    # Outputs of the first module down to the second, their error gradients back, for four samples.
    assert costs.traffic == 2 * 4 * 8
    # The state of the second module.
    assert costs.copies == 8 * 10 + 10
    assert costs.update == 0


def test_traffic_is_the_largest_modules():
    given = ("algorithm=bp", "model=mlp", "model.widths=[6,5]", "cluster.workers=3", "run.batch_size=4")
    costs = pipeline_costs(build_run(compose(*given, "dataset.limit_train=64")))
    # Outputs of 6 and of 5: the module between sends both ways, the first to the second most.
    assert costs.traffic == 2 * 4 * 6
