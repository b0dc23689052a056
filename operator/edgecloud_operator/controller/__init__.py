"""The control loop that both shells share: observe, decide, act."""
