"""What the tests of all methods do with one."""


def run(algorithm, iterations):
    """Iterate; returns the metrics of the last iteration."""
    for _ in range(iterations):
        algorithm.collect()
        algorithm.update()
    return algorithm.metrics()
