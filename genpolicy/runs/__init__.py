"""What surrounds training: checkpoints, the loop, logging, seeding, processes, run folders."""
