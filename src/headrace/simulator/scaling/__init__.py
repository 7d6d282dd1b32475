"""Scaling policies side by side: the same demand, the same cold start, the same bill.

    demand ──► pool (fluid or events) ──► Reading ──► scaler ──► actuation ──► fleet ──► pool

`demand` is what arrives; a pool is what so many ready replicas do with it; a scaler sees a
`Reading` and wishes a number; `actuation` is what KEDA and the HPA make of the wish; the `fleet`
orders, waits for the cold start, drains, and counts what is paid for.
"""
