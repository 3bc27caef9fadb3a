"""The parts of ``fault_matrix.py``: what is broken, on which arm, and how the result is judged."""
