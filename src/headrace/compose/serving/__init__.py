"""What a process that serves is made of: gateway, fleets, autoscaler, reload."""
