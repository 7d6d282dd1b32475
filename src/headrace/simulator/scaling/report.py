"""stub"""
def scaling_report(runs, settings, workload, parameters): return ""
