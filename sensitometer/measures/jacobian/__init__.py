"""The Jacobian norm: its door, the pass for fully connected networks, the estimate, and the kernels of both."""
