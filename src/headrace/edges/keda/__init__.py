"""KEDA's external scaler protocol: what KEDA asks over gRPC, answered from a scaler's plans."""
