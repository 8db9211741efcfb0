"""The parts of the composition root: which implementation serves which port in this process."""
