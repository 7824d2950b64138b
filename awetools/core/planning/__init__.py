"""What is to be made, and why: targets, nodes, the choice of calibrations, the decision, command lines."""
