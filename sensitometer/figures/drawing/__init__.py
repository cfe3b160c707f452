"""The parts that figures share: the interface, both styles, and the panels with the generalization gap."""
