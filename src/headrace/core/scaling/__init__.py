"""HOW MANY REPLICAS: from the totals that gateways tell to a plan with its reasons.

`decision.PoolScaler.tick` decides for one pool. It is told an `Observation`, asks what
`headrace.core.signals` think of a `ScalingView`, and answers with a `ScalePlan`.
"""
