"""Fleet backends: who starts, stops and lists replicas."""
