"""`headrace simulate`: policies or scalers against a workload, side by side."""
