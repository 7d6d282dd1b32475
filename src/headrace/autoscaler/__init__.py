"""The autoscaler: gathers what gateways tell, has the core decide, publishes and carries out."""
